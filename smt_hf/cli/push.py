"""Upload a finished run to the Hub, in one commit: model, tokenizer, card, record and teacher."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN_DIR", type=Path, help="folder of a finished run")
    parser.add_argument("--repo-id", required=True, help="OWNER/NAME, or NAME for a repository of your own")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="branch to push to; made from main if need be [main]")
    parser.add_argument("--without-teacher", action="store_true", help="leave teacher/ at home")
    parser.add_argument("--dry-run", action="store_true", help="list what would be uploaded; needs no network")


def run(args: argparse.Namespace) -> int:
    from smt_hf.hub.push import class_stays_behind, files_to_upload, push, read_json

    teacher = not args.without_teacher
    if not args.dry_run:
        print(push(args.folder, args.repo_id, args.private, args.revision, teacher))
        return 0
    sizes = {path: path.stat().st_size for path in files_to_upload(args.folder, teacher)}
    for path, size in sizes.items():
        print(f"{size:>14,}  {path.relative_to(args.folder).as_posix()}")
    print(f"{sum(sizes.values()):>14,}  bytes in {len(sizes)} files would go to {args.repo_id}")
    if notice := class_stays_behind((read_json(args.folder / "run.json") or {})["cell"]):
        print(notice)
    return 0
