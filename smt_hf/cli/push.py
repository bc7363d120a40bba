"""Upload a finished run to the Hub in one commit, or refresh the code of a model that was pushed before."""

import argparse
from collections.abc import Iterable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN_DIR", type=Path, nargs="?", help="folder of a finished run")
    parser.add_argument("--repo-id", required=True, help="OWNER/NAME, or NAME for a repository of your own")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="branch to push to; made from main if need be [main]")
    parser.add_argument("--without-teacher", action="store_true", help="leave teacher/ at home")
    parser.add_argument(
        "--code-only",
        action="store_true",
        help="without RUN_DIR: send the code of this version to a model that is on the Hub, and nothing else",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be uploaded; needs no network")


def list_files(files: Iterable[Path], folder: Path, repo_id: str) -> None:
    sizes = {path: path.stat().st_size for path in files}
    for path, size in sizes.items():
        print(f"{size:>14,}  {path.relative_to(folder).as_posix()}")
    print(f"{sum(sizes.values()):>14,}  bytes in {len(sizes)} files would go to {repo_id}")


def run(args: argparse.Namespace) -> int:
    if args.code_only:
        return run_code_only(args)
    if args.folder is None:
        raise ValueError("RUN_DIR is missing; give the folder of a finished run, or --code-only.")
    from smt_hf.hub.push import check_content, check_name, class_stays_behind, files_to_upload, push
    from smt_hf.runs.record import RunRecord

    teacher = not args.without_teacher
    if not args.dry_run:
        print(push(args.folder, args.repo_id, args.private, args.revision, teacher))
        return 0
    check_name(args.repo_id)
    files = files_to_upload(args.folder, teacher)
    check_content(args.folder, files)
    list_files(files, args.folder, args.repo_id)
    if notice := class_stays_behind(RunRecord.of_finished(args.folder).cell):
        print(notice)
    return 0


def run_code_only(args: argparse.Namespace) -> int:
    given = {"RUN_DIR": args.folder, "--private": args.private, "--without-teacher": args.without_teacher}
    if names := [name for name, value in given.items() if value]:
        raise ValueError(f"--code-only sends no run; leave out {', '.join(names)}.")
    from smt_hf.hub.code import code_files, push_code
    from smt_hf.hub.push import check_name

    if args.dry_run:
        check_name(args.repo_id)
        files = code_files()
        list_files(files, files[0].parent, args.repo_id)
    else:
        print(push_code(args.repo_id, args.revision))
    return 0
