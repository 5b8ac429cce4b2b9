"""Launching where the root lies at a URL: the launch's folder is held while one brings it further, whichever
machine that is, and says of every job how it stands in the store."""

from bltjax.launch.job import Job
from bltjax.storage.mirror import Root
from bltjax.storage.work import Work


class Launch(Work):
    """The folder of a launch (job.FOLDER) as a job of its own (storage/work.py) that never is done."""

    def __init__(self, root: Root, folder, jobs: list[Job] = (), **options):
        super().__init__(root, folder, **options)
        self._jobs = jobs

    def __enter__(self) -> "Launch":
        super().__enter__()
        try:
            for job in self._jobs:
                self.root.directory(job.directory).pull_small()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self
