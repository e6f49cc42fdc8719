"""A command of ours on the Hub's machines: `solami sft ... --job a10g-small --job_bucket OWNER/NAME` prints it."""

import shlex
from dataclasses import dataclass, fields
from pathlib import Path

from ..command_line import option

IMAGE = "python:3.11"


@dataclass
class JobArguments:
    """Where a command runs instead of here."""

    job: str | None = option(None, "Hardware of the Hub, as a10g-small: prints the `hf jobs` line, and ends.")
    job_bucket: str | None = option(None, "OWNER/NAME of the bucket that the job writes to.")
    job_timeout: str = option("6h", "Longest that the job may take.")
    job_package: str = option("solami_hf", "What pip installs there: also a git address.")


def job_line(prog: str, argv: list[str], args: JobArguments, output: str) -> str:
    """The `hf jobs run` line of a command line: `prog`, such as "solami sft", and its words without those of
    `JobArguments`. Folders and files of this machine that it names are mounted, read-only, at `/inputs`; its output,
    which the option named `output` says, is a folder of the bucket, mounted at `/outputs`. The job runs once the line
    is; nothing is sent here. Raises ValueError: no bucket is named, and a job's own disk is gone when it ends."""
    if not args.job_bucket:
        raise ValueError("`job_bucket` is missing: a job's disk is gone when it ends; `hf buckets create` makes one")
    left_out = {f"--{item.name}" for item in fields(JobArguments)} | {f"--{output}"}
    words, mounts, name, skip = [], {}, prog.split()[-1], None
    for word in argv:
        flag, _, value = word.partition("=")
        if skip or flag in left_out:
            given = value if not skip else word
            name = Path(given).name if (skip or flag) == f"--{output}" and given else name
            skip = flag if not skip and not value else None
            continue
        path = Path(word)
        if not word.startswith("-") and path.exists():
            folder = path if path.is_dir() else path.parent
            place = mounts.setdefault(str(folder.absolute()), f"/inputs/{len(mounts)}")
            word = place if path.is_dir() else f"{place}/{path.name}"
        words.append(word)
    command = shlex.join([*prog.split(), *words, f"--{output}", f"/outputs/{name}"])
    line = ["hf", "jobs", "run", "--flavor", args.job, "--timeout", args.job_timeout, "--secrets", "HF_TOKEN"]
    line += [word for folder, place in mounts.items() for word in ("-v", f"{folder}:{place}:ro")]
    line += ["-v", f"hf://buckets/{args.job_bucket}:/outputs:rw", IMAGE]
    return shlex.join([*line, "bash", "-c", f"pip install {shlex.quote(args.job_package)} && {command}"])
