from bltjax.parallel import host

host.import_matplotlib()  # before any of the files here does, with its own defaults
