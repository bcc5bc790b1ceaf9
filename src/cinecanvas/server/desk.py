"""The desk: what every dialect does with what it was sent. Orders are accepted, and what was made is handed out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast, get_args
from urllib.parse import urlsplit

from cinecanvas.enhance import check_enhancer
from cinecanvas.errors import BadMedia, BadRequest, CannotWrite, Unsupported
from cinecanvas.jobs.files import Files, StoredFile
from cinecanvas.jobs.hooks import Hooks
from cinecanvas.jobs.job import Foretold, Job, foretold
from cinecanvas.jobs.keys import Caller
from cinecanvas.jobs.ledger import Ledger
from cinecanvas.jobs.order import Order, Source, order
from cinecanvas.jobs.queue import NotNow, Queue
from cinecanvas.jobs.tariff import Tariff
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.destination import told
from cinecanvas.media.fetch import Web, check_url
from cinecanvas.media.warden import Warden
from cinecanvas.models import card, others, pinned, ready
from cinecanvas.pace import read_paces
from cinecanvas.plan import Plan, plan
from cinecanvas.request import Media, draw_seed
from cinecanvas.settings import Settings

URL_SECONDS = 86400.0  # that a result's URL is good for
MOST_DATA_URI = 24 << 20  # characters
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(;[\w=.+-]+)*;base64,", re.ASCII)

_TYPES = {"thumbnail": "image/webp", "spritesheet": "image/jpeg", "first": "image/png", "last": "image/png"}
Variant = Literal["video", "thumbnail", "spritesheet", "first", "last"]


class Picture(NamedTuple):
    """A picture of a film, small enough to be held."""

    data: bytes
    media_type: str


@dataclass(frozen=True)
class Desk:
    """A queue, a store, the files that people brought, and who looks at media for us."""

    queue: Queue
    store: Store
    files: Files
    warden: Warden
    where: Settings
    secret: bytes
    models: tuple[str, ...]  # the names of those that are served; the first is the default
    public: str = ""  # the address that users know, if it is not the one they ask at
    web: Web = field(default_factory=Web)
    tariff: Tariff = field(default_factory=Tariff)
    leaving: Callable[[], bool] = lambda: False  # whether the server is about to end

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.queue.database, self.tariff)

    @property
    def hooks(self) -> Hooks:
        return Hooks(self.queue.database, self.web)

    # Orders

    def accept(
        self,
        caller: Caller,
        asked: Order,
        *,
        dialect: str,
        echo: Mapping[str, Any] | None = None,
        kind: Literal["video", "image"] = "video",
        suffix: str = "",
        callback: str = "",
        priority: int = 0,
        deadline: float | None = None,
        idempotency: str | None = None,
        body: str = "",
    ) -> Job:
        """A job for an order, once all that can be known without the model is known to be right."""
        if callback:
            check_url(callback, web=self.web)
        asked, found = self._located(caller, asked)
        seed = getattr(asked, "seed", None)
        if seed is None:  # drawn here and kept: whoever makes it, whenever, makes the same
            asked = asked.model_copy(update={"seed": draw_seed()})
        model = getattr(asked, "model", self.models[0])
        told = self._foretold(asked, found, model)
        with self.ledger.admitting(caller, told) as admit:
            return self.queue.submit(
                asked,
                account=caller.account,
                dialect=dialect,
                kind=kind,
                suffix=suffix,
                model=model,
                echo=echo,
                callback=callback,
                foretold=told,
                priority=priority,
                deadline=deadline,
                idempotency=idempotency,
                body=body,
                price=self.tariff,
                admit=admit,
            )

    def order(self, task: str, *, model: str = "", **given: Any) -> Order:
        """An order for a model that is served here; foreign names stand for the default."""
        return order(task, model=self.served(model), **{k: v for k, v in given.items() if v is not None})

    def served(self, model: str, *, foreign: Iterable[str] = ()) -> str:
        """The name of one of our models; a name that a vendor gave to one of his stands for our default."""
        if not model or model in foreign:
            return self.models[0]
        if model not in self.models:
            raise Unsupported(
                f"The model {model[:60]!r} was asked", f"Served here: {', '.join(self.models)}", "Ask for one of them"
            )
        return model

    def able(self, task: str) -> str:
        """The models served here that can do a task, with commas; "": none."""
        return ", ".join(name for name in self.models if task in card(name).tasks)

    def _located(self, caller: Caller, asked: Order) -> tuple[Order, dict[Source, Media]]:
        """The order with every source an asset or a URL, and what is known of the assets."""
        found: dict[Source, Media] = {}
        places: dict[Source, Source] = {}
        for source in dict.fromkeys(asked.sources()):
            if source.url is not None:
                check_url(source.url, web=self.web)
                continue
            asset = self.asset_of(caller, source)
            places[source] = Source(asset=asset.digest)
            found[places[source]] = asset
        return asked.located(places), found

    def planned(self, caller: Caller, asked: Order) -> Plan | None:
        """The plan of an order; None while media that it names are still to be fetched."""
        asked, found = self._located(caller, asked)
        if getattr(asked, "seed", None) is None:
            asked = asked.model_copy(update={"seed": 0})
        return self._plan(asked, found, getattr(asked, "model", self.models[0]))

    def _foretold(self, asked: Order, found: Mapping[Source, Media], model: str) -> Foretold:
        """What it will come to; with media that are still to be fetched, nothing yet."""
        made = self._plan(asked, found, model)
        return foretold(made) if made is not None else Foretold(count=getattr(asked, "count", 1))

    def _plan(self, asked: Order, found: Mapping[Source, Media], model: str) -> Plan | None:
        if any(source.url is not None for source in asked.sources()):
            return None
        chosen = card(model)
        request = pinned(asked.request(found), where=self.where)
        check_enhancer(request, chosen, self.where)
        media = {asset.digest: asset for asset in found.values()}
        pace = read_paces(self.where.cache).get(chosen.name, {})
        return plan(request, chosen, media=media, pace=pace, others=others(where=self.where))

    # What people bring

    def source(self, caller: Caller, text: str, *, dialect: str) -> Source:
        """What a string in a message stands for: a data URI, a URL of ours, or a URL of somebody else."""
        if text.startswith("data:"):
            return Source(file=self.brought(caller, _decoded(text), dialect=dialect).id)
        own = self._own(caller, text, dialect=dialect)
        if own is not None:
            return own
        check_url(text, web=self.web)
        return Source(url=text)

    def brought(
        self,
        caller: Caller,
        stream: BinaryIO | bytes,
        *,
        dialect: str,
        name: str = "",
        purpose: str = "media",
        days: float | None = 1.0,
    ) -> StoredFile:
        """A picture or film that came in a message, looked at by the warden and kept."""
        asset = self.looked_at(stream, name=name)
        return self.files.add(
            account=caller.account, dialect=dialect, name=name, purpose=purpose, asset=asset, days=days
        )

    def looked_at(self, stream: BinaryIO | bytes, *, name: str = "") -> Asset:
        """Bytes from outside as an asset, or the refusal."""
        with told("into the store"), tempfile.NamedTemporaryFile(dir=self.store.root, prefix=".upload-") as aside:
            for piece in _pieces(stream):
                aside.write(piece)
            aside.flush()
            return self.warden.take(Path(aside.name), name=name or "The upload")

    def asset_of(self, caller: Caller, source: Source) -> Asset:
        """The asset that a source of the caller's stands for."""
        if source.file is not None:
            file = self.files.get(source.file, account=caller.account)
            if file.asset is None:
                raise NotNow(f"The file is {file.state}", do="Upload its bytes first")
            return file.asset
        if source.job is not None:
            return self.made(self.queue.get(source.job, account=caller.account), source.output)
        assert source.asset is not None
        if not self.files.owns(caller.account, source.asset):
            raise BadRequest("There is no such asset of yours", do="Upload it first")
        return self.warden.describe(source.asset)

    # What was made

    def made(self, job: Job, output: int = 0) -> Asset:
        """An asset of a job that has ended well."""
        if job.state in ("failed", "cancelled"):
            raise NotNow(f"The job is {job.state}", "It made nothing", "Make it again")
        if job.state != "succeeded":
            raise NotNow(f"The job is {job.state}", "Only what is finished can be taken", "Wait until it has ended")
        if job.outcome is None or output >= len(job.outcome.assets):
            raise NotNow("What the job made has expired", do="Make it again")
        return job.outcome.assets[output]

    def picture(self, job: Job, variant: Variant, output: int = 0) -> Picture:
        """A picture of what a job made: drawn when it is first asked for, and kept for a while."""
        asset = self.made(job, output)
        key = hashlib.sha256(f"{variant} of {asset.digest}".encode()).hexdigest()
        data = self.store.get_named(key)
        if data is None:
            data = self._drawn(asset.digest, variant)
            with suppress(CannotWrite):
                self.store.put_named(key, data)
        return Picture(data, _TYPES[variant])

    def _drawn(self, digest: str, variant: Variant) -> bytes:
        if variant == "thumbnail":
            return self.warden.thumbnail(digest)
        if variant == "spritesheet":
            return self.warden.spritesheet(digest)
        return self.warden.frame(digest, last=variant == "last")

    def url(self, job: Job, base: str, variant: str = "video", output: int = 0) -> str:
        """A URL that needs no key, for a day; `live` is the film while it is made, and once it is there the film."""
        return self.signed_url(base, f"/media/{job.id}/{output}/{variant}", until=int(time.time() + URL_SECONDS))

    def signed_url(self, base: str, path: str, *, until: int, method: str = "") -> str:
        """The URL of a path that needs no key until a second since 1970; for other methods than GET it names them."""
        return f"{base}{path}?until={until}&signature={self.signature(f'{method} {path}'.strip(), until)}"

    def signature(self, path: str, until: int) -> str:
        return hmac.new(self.secret, f"{path}?{until}".encode(), hashlib.sha256).hexdigest()[:43]

    def signed(self, path: str, until: int, signature: str) -> bool:
        """Whether a URL of ours was signed by us and is still good."""
        return time.time() < until and hmac.compare_digest(self.signature(path, until).encode(), signature.encode())

    def _own(self, caller: Caller, url: str, *, dialect: str) -> Source | None:
        """What a signed URL of ours stands for; it needs no fetching, and could not be fetched from a loopback."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        match = re.fullmatch(r".*(/media/([0-9a-f-]{36})/(\d{1,3})/(\w+))", parts.path)
        query = dict(pair.split("=", 1) for pair in parts.query.split("&") if "=" in pair)
        with suppress(ValueError):
            if match and self.signed(match[1], int(query.get("until", 0)), query.get("signature", "")):
                job, output = self.queue.get(match[2]), int(match[3])
                if match[4] in ("video", "live"):  # whoever has such a URL may see the film, and so may use it
                    asset = self.made(job, output)
                    kept = self.files.add(account=caller.account, dialect=dialect, purpose="media", asset=asset, days=1)
                    return Source(file=kept.id)
                picture = self.picture(job, named(match[4]), output)
                return Source(file=self.brought(caller, picture.data, dialect=dialect).id)
        return None


def named(name: str) -> Variant:
    """The variant of that name."""
    if name in get_args(Variant):
        return cast(Variant, name)
    raise BadRequest(f"The variant {name[:20]!r} was asked", "Possible are video, thumbnail and spritesheet")


def served_models(asked: Iterable[str] = ()) -> tuple[str, ...]:
    """The models to serve: those asked, or all whose weights are here, our own first."""
    wanted = tuple(asked)
    for name in wanted:
        card(name)
    return wanted or tuple(sorted(ready(), key=lambda name: (name != "diorama", name)))


def _decoded(uri: str) -> bytes:
    """The bytes of a data URI."""
    head = _DATA.match(uri)
    if head is None or len(uri) > MOST_DATA_URI:
        raise BadRequest("A data URI cannot be read", f"It is data:TYPE;base64,... of at most {MOST_DATA_URI >> 20} MB")
    try:
        return base64.b64decode(uri[head.end() :], validate=True)
    except binascii.Error:
        raise BadMedia("A data URI does not hold base64") from None


def _pieces(stream: BinaryIO | bytes) -> Iterable[bytes]:
    if isinstance(stream, bytes):
        return (stream,)
    stream.seek(0)
    read: Callable[[], bytes] = lambda: stream.read(1 << 20)  # noqa: E731
    return iter(read, b"")
