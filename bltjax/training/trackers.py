"""What shows a run's metrics elsewhere while it trains: TensorBoard, Weights & Biases. Each takes the lines
of metrics.jsonl, which stays the record of a run; without one of them nothing is missing."""

import pathlib
import secrets

from bltjax import config as configs
from bltjax.errors import UserError
from bltjax.storage import rundir

ID = "tracker.json"  # {"id"}: what the run is called there, over all of its attempts


def chosen(run_dir, config, tensorboard: bool = False, wandb: str = "") -> list:
    """The trackers of a run, each with `write(line)` and `close()`. tensorboard: event files in its
    directory; wandb: the project there ("" is none). UserError where the package of one is missing."""
    run_dir = pathlib.Path(run_dir)
    return [
        *([TensorBoard(run_dir / "tensorboard")] if tensorboard else []),
        *([Wandb(run_dir, config, wandb)] if wandb else []),
    ]


class TensorBoard:
    """Event files in a folder."""

    def __init__(self, folder):
        self._board = _board(folder)

    def write(self, line: dict) -> None:
        for name, value in _scalars(line):
            self._board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        self._board.close()


class Wandb:
    """A run of a project of Weights & Biases, the same one whenever it goes on. WANDB_MODE=offline, and its
    other variables, are the package's own.

    It is told the config and the metrics, and nothing of the machine, the command line, the code or what is
    printed, where a secret could stand."""

    def __init__(self, run_dir: pathlib.Path, config, project: str):
        wandb = _wandb()
        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
        )
        try:
            self._run = wandb.init(
                project=project,
                id=identity(run_dir),
                name=config.name,
                resume="allow",
                dir=str(run_dir),
                config=configs.to_dict(config),
                settings=settings,
            )
        except Exception as error:  # no key, no network, a project that may not be written to
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"--wandb {project}: {said} (WANDB_MODE=offline needs no network)") from None

    def write(self, line: dict) -> None:
        self._run.log(dict(_scalars(line)), step=line["step"])

    def close(self) -> None:
        self._run.finish()


def identity(run_dir: pathlib.Path) -> str:
    """What trackers call a run: 16 hex digits, drawn once and kept in its directory."""
    kept = (rundir.read_json(run_dir / ID) or {}).get("id")
    if not isinstance(kept, str):
        kept = secrets.token_hex(8)
        rundir.write_json(run_dir / ID, {"id": kept})
    return kept


def _scalars(line: dict, before: str = ""):
    """Yields (name, number) of a line, those of what is nested under a path of names."""
    for name, value in line.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{before}{name}/")
        elif value is not None and (before or name not in ("step", "time")):
            yield before + name, value


def _board(folder):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise missing("TensorBoard", "tensorboard") from None
    return SummaryWriter(str(folder))


def _wandb():
    try:
        import wandb
    except ImportError:
        raise missing("wandb", "wandb") from None
    return wandb


def missing(name: str, extra: str) -> UserError:
    """The line for a package that an extra brings."""
    return UserError(
        f"{name} is not installed; install the extra: pip install 'bltjax[{extra}]' (or make setup"
        f" EXTRAS={extra})"
    )
