"""Our API keeps what its OpenAPI document says, and the document says all that a client's author needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")

from cinecanvas.jobs.order import ORDERS, order
from cinecanvas.models import card
from cinecanvas.plan import plan
from cinecanvas.server.app import build
from cinecanvas.server.desk import Desk

BENCH = Path(__file__).parents[1] / "bench" / "schema.py"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build(cast(Desk, SimpleNamespace(queue=None, models=("toy", "diorama")))).openapi()


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def test_every_answer_is_one_of_those_in_the_document() -> None:
    command = [sys.executable, str(BENCH), "--cases", "1", "--each", "8", "--no-edges", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["cases"] > 300
    assert result["failures"] == 0 and not result["violations"], json.dumps(result, indent=1)[:6000]


def test_every_operation_says_what_it_does_and_how_it_fails(document: dict[str, Any]) -> None:
    for operation in operations(document):
        assert operation["summary"] and operation["tags"], operation["operationId"]
        assert all(parameter["description"] for parameter in operation.get("parameters", ()))
        for status, answer in operation["responses"].items():
            assert status[0] in "23" or "$ref" in answer or status == "416", (operation["operationId"], status)


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names) and all(name.replace("_", "").isalpha() for name in names)


def test_what_is_named_is_there(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    names = {operation["operationId"] for operation in operations(document)}
    for kind in ("schemas", "responses"):
        for name in document["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text, f"nobody uses the {kind} {name}"
    for operation in operations(document):
        for answer in operation["responses"].values():
            where = answer.get("$ref", "#/components/responses/400").split("/")
            assert where[3] in document["components"]["responses"]
            assert {link["operationId"] for link in answer.get("links", {}).values()} <= names


def test_an_order_is_told_by_its_task(document: dict[str, Any]) -> None:
    orders = document["components"]["schemas"]["Order"]
    assert orders["discriminator"]["propertyName"] == "task"
    for task, name in orders["discriminator"]["mapping"].items():
        kind = document["components"]["schemas"][name.rpartition("/")[2]]
        assert task in ORDERS and "task" in kind["required"]
        assert kind["properties"]["model"]["enum"] == ["toy", "diorama"]


def test_every_order_may_ask_for_a_recipe_of_its_own_within_bounds(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in schemas["Order"]["discriminator"]["mapping"].values():
        fields = schemas[name.rpartition("/")[2]]["properties"]
        least = {name: fields[name]["anyOf"][0] for name in ("steps", "guidance", "rescale")}
        assert [(one["minimum"], one["maximum"]) for one in least.values()] == [(1, 1000), (0, 30), (0, 1)]
        assert fields["guided"]["anyOf"][0]["minItems"] == 2 and fields["guided"]["description"]


def test_every_example_is_an_order(document: dict[str, Any]) -> None:
    body = document["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        order(**example["value"])


def test_a_key_is_asked_everywhere(document: dict[str, Any]) -> None:
    assert document["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_a_film_of_hardly_any_frames_per_second_is_planned() -> None:
    asked = order("text_to_video", prompt="a red ball", model="toy", seconds=2.0, fps=0.11, seed=1).request({})
    assert plan(asked, card("toy")).frames >= 1
