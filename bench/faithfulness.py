"""Do clips show what their sentences say? python bench/faithfulness.py --model diorama [--prompts 240] [--folder F].

With --write the scores of the papers examined take the place of those on the Card in the folder.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path
from typing import get_args

import torch

from cinecanvas.errors import CinecanvasError
from cinecanvas.eval.faithfulness import PAPERS, Paper, Report, exam, report, table
from cinecanvas.eval.judge import Judge, judges
from cinecanvas.eval.scores import keep
from cinecanvas.model import Model, Quality


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="diorama")
    parser.add_argument("--folder", type=Path, help="exported weights of diorama, instead of the shipped ones")
    parser.add_argument("--judges", type=Path, help="folder of judges, instead of the shipped ones")
    parser.add_argument("--prompts", type=int, default=240, help="on each paper")
    parser.add_argument("--papers", default=",".join(PAPERS), help="of plain, words, triples")
    parser.add_argument("--quality", default="standard", choices=get_args(Quality))
    parser.add_argument("--seed", type=int, default=0, help="another seed is another set of scenes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the reports here as well")
    parser.add_argument("--write", action="store_true", help="put the scores on the Card in the folder")
    asked = parser.parse_args()
    if asked.write and asked.folder is None:
        parser.error("--write needs --folder")
    torch.set_num_threads(asked.threads)
    try:
        panel, model = judges(asked.judges), _model(asked)
        reports = [_examined(model, panel, paper, asked) for paper in PAPERS if paper in asked.papers.split(",")]
    except CinecanvasError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(table(reports))
    if asked.write:
        keep(asked.folder, [score for one in reports for score in one.scores])
    text = json.dumps([one.model_dump(mode="json") for one in reports], indent=1)
    if asked.json is None:
        print(text)
    else:
        asked.json.write_text(text + "\n")
    return 0


def _model(asked: argparse.Namespace) -> Model:
    if asked.folder is not None:
        from cinecanvas.models import diorama

        return diorama.load(asked.folder)
    from cinecanvas.models import load

    return load(asked.model)


def _examined(model: Model, panel: tuple[Judge, ...], paper: Paper, asked: argparse.Namespace) -> Report:
    began, sittings = time.monotonic(), []
    for one in exam(model, panel, prompts=asked.prompts, seed=asked.seed, quality=asked.quality, paper=paper):
        sittings.append(one)
        done = sum(len(s.captions) for s in sittings)
        print(f"{paper}: {done}/{asked.prompts}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    # the folder of an export is nobody's business; the digests on the Card say which weights these were
    command = (
        f"python bench/faithfulness.py --model={model.card.name} --prompts={asked.prompts} "
        f"--papers={paper} --quality={asked.quality} --seed={asked.seed}"
    )
    today = datetime.date.today().isoformat()
    return report(sittings, model=model.card.name, paper=paper, command=command, date=today)


if __name__ == "__main__":
    sys.exit(main())
