"""What our OpenAPI document says beside the routes: who may ask, what can go wrong, what leads where, and examples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cinecanvas.request import MOST_SEED

ALWAYS = (400, 401, 403, 414, 421, 422, 429, 431, 503)  # what any request may be answered
_PROBLEMS = {
    400: "The request makes no sense, or not for this model.",
    401: "A key is needed, and none is there, or it is not known.",
    403: "This key may not do that; or a page of another site asks.",
    404: "There is no such thing, or it is not yours.",
    408: "The body did not come in time.",
    409: "Not in the state that it is in.",
    413: "The body is too large.",
    414: "The path and query are too long.",
    421: "The server does not go by the name that it was called by.",
    422: "A parameter or a field of the body is missing, unknown, or not of its kind.",
    429: "Too many requests, or more than the quota of the key.",
    431: "The headers are too many or too long.",
    503: "The server cannot do this now; try again later.",
}
_TEXT = {"schema": {"type": "string"}}
_RETRY = {"retry-after": {"description": "Seconds after which the same may work.", "schema": {"type": "integer"}}}
_HEADERS: Mapping[int, dict[str, Any]] = {
    401: {"www-authenticate": {"description": "How to say who asks.", **_TEXT}},
    429: _RETRY,
    503: _RETRY,
}
_ID = {"x-request-id": {"description": "Names this request in the server's log.", "required": True, **_TEXT}}
_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key of `cine keys make`. Where nobody has made one, the server answers its own machine without.",
}
_TAGS = (
    {"name": "jobs", "description": "What was asked: how far it is, what it made, and how to stop it."},
    {"name": "files", "description": "Pictures and films of yours, for orders to name."},
    {"name": "keys", "description": "For operators: who may ask, how much, and what each has used."},
    {"name": "server", "description": "What serves you: its version and models, your key, and what you have used."},
)
_CLIP = {"file": "2f1c7d0e-6f0b-4c0e-9b1e-5d0c3c1f7a10"}
EXAMPLES: dict[str, Any] = {
    task: {"summary": said, "value": {"task": task, "prompt": prompt, **more}}
    for task, said, prompt, more in (
        ("text_to_video", "Words in, video out", "a red ball bounces on grass at sunset", {"seconds": 2.0, "seed": 7}),
        ("text_to_image", "One picture", "a blue cube on sand under a grey sky", {"shape": "1:1"}),
        ("animate", "A picture moves", "the cone rolls to the right", {"picture": _CLIP, "seconds": 2.0}),
        ("keyframes", "Pictures at their seconds", "a ball falls", {"pictures": [{"picture": _CLIP, "at": 1.0}]}),
        ("interpolate", "From one to the other", "the ball rises", {"first": _CLIP, "second": _CLIP}),
        ("extend", "More after a clip", "the ball comes to rest", {"clip": _CLIP, "seconds": 2.0}),
        ("retake", "A part once more", "the ball turns green", {"clip": _CLIP, "start": 0.5, "end": 1.0}),
        ("inpaint", "A region anew", "a yellow cube", {"clip": _CLIP, "mask": _CLIP}),
        ("outpaint", "In another shape", "grass and sky", {"clip": _CLIP, "to": "16:9"}),
        ("remix", "With other words", "the same at night", {"clip": _CLIP, "keep": 0.5}),
        ("upscale", "Twice its size", "a red ball", {"clip": _CLIP, "times": 2}),
    )
}
EVENT = {
    "type": "object",
    "description": "One event; a comment comes after 15 s of silence. It ends with the job.",
    "properties": {
        "id": {"type": "string", "description": "Its number: ask again with it as Last-Event-ID."},
        "event": {
            "type": "string",
            "description": "queued, running, phase, step, watch, preview, stored, note, or its end.",
        },
        "data": {"type": "string", "contentMediaType": "application/json", "description": "The job, when, and what."},
        "retry": {"type": "integer", "description": "Milliseconds after which to ask again, when the line breaks."},
    },
}
_OF_JOB = {
    "get_job": "How far it is.",
    "follow_job": "What happens to it, as it happens.",
    "change_job": "Pause or move it while it waits.",
    "cancel_job": "Stop it.",
    "delete_job": "Forget it.",
    "preview_job": "What it may become.",
    "watch_job": "The film while it is made.",
    "list_deliveries": "Whom it was told to.",
}
_OF_FILE = {"get_file": "What is known of it.", "delete_file": "Forget it."}
_LINKS = {  # where the answer of an operation leads: the parameter that takes its id, and the operations
    "create_job": ("job", _OF_JOB),
    "cancel_job": ("job", {"get_job": "How it ended.", "delete_job": "Forget it."}),
    "upload_file": ("file", _OF_FILE),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The failures of an operation, beside those of every operation; `document` says what each means."""
    return {status: {"$ref": f"#/components/responses/{status}"} for status in (*ALWAYS, *statuses)}


def document(written: dict[str, Any], *, models: tuple[str, ...], failure: type[BaseModel]) -> dict[str, Any]:
    """The document as FastAPI writes it, once, with what it cannot know; failure: what is said when one is."""
    if "securitySchemes" in written["components"]:
        return written
    text = json.dumps(written).replace("Body_upload_file", "Upload")
    written.clear()
    written.update(json.loads(text))
    components = written["components"]
    components["securitySchemes"] = {"key": _KEY}
    _, schemas = models_json_schema([(failure, "serialization")], ref_template="#/components/schemas/{model}")
    components["schemas"] |= schemas["$defs"]
    components["responses"] = {str(status): _problem(status) for status in _PROBLEMS}
    written |= {"security": [{"key": []}], "tags": list(_TAGS)}
    operations = {
        one["operationId"]: one for path in written["paths"].values() for one in path.values() if "operationId" in one
    }
    body = operations["create_job"]["requestBody"]["content"]["application/json"]
    components["schemas"]["Order"] = body["schema"]
    for name in ("create_job", "plan_order"):
        operations[name]["requestBody"]["content"]["application/json"]["schema"] = {
            "$ref": "#/components/schemas/Order"
        }
    for name in components["schemas"]["Order"]["discriminator"]["mapping"].values():
        _serve(components["schemas"][name.rpartition("/")[2]], models)
    for name, operation in operations.items():
        _dress(operation, components["schemas"], *_LINKS.get(name, ("", {})))
    return written


def _problem(status: int) -> dict[str, Any]:
    """A failure, whatever it is of."""
    failure = {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}}
    headers = _ID | _HEADERS.get(status, {})
    return {"description": _PROBLEMS[status], "content": failure, "headers": headers}


def _serve(order: dict[str, Any], models: tuple[str, ...]) -> None:
    """The models that this very server has."""
    order["properties"]["model"] |= {"enum": list(models), "default": models[0]}
    for seed in order["properties"]["seed"]["anyOf"]:
        if "maximum" in seed:
            seed["maximum"] = MOST_SEED  # FastAPI's is a float, and so another number


def _dress(operation: dict[str, Any], schemas: dict[str, Any], parameter: str, links: Mapping[str, str]) -> None:
    """An operation's answers in words of ours, with the headers that all of them have; and what follows."""
    for status, response in operation["responses"].items():
        if "$ref" in response:
            response.pop("description", None)  # it would hide that of the failure itself
            continue
        response.setdefault("headers", {}).update(_ID)
        if response["description"] == "Successful Response":
            response["description"] = _said(response, schemas) or operation["summary"] + "."
        if links and status in ("200", "201"):
            given = {parameter: "$response.body#/id"}
            response["links"] = {
                name: {"operationId": name, "parameters": given, "description": said} for name, said in links.items()
            }


def _said(response: dict[str, Any], schemas: dict[str, Any]) -> str:
    """What a schema says of itself, up to the end of its first sentence."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    words = str(schemas.get(schema.get("$ref", "").rpartition("/")[2], {}).get("description", ""))
    return words.partition(". ")[0].rstrip(".") + "." if words else ""
