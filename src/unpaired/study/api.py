"""What the page may ask and say, checked; no web framework in here. Names of methods and images never leave.

Whatever comes in is a stranger's: types, lengths and ids are checked before the store hears of them.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from unpaired.study.questions import QUESTIONS, order_of_images, order_of_methods
from unpaired.study.records import Rater
from unpaired.study.store import NameTakenError, Store

LONGEST_NAME = 40
_LONGEST_ID = 64
_PUNCTUATION = " .-_'"
_PIXEL_ART_SIDE = 100
"""Images up to this side are enlarged with hard pixels, so that nobody judges the browser's smoothing."""


class RefusedError(Exception):
    """A request that cannot be met, and the HTTP status and words that say so."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": message, **more}


def overview(store: Store, rater: Rater | None) -> dict[str, Any]:
    """All that the page needs: the questions and, for a rater, every image in this rater's order with the answers.

    Files are named by random ids. ``choices`` are the translations from left to right.
    """
    study = store.study
    found: dict[str, Any] = {
        "images": len(study.images),
        "methods": len(study.methods),
        "questions": [
            {"key": key, "title": row.title, "hint": row.hint, "shows_target": row.shows_target}
            for key, row in QUESTIONS.items()
        ],
        "target_examples": study.target_examples,
        "hard_pixels": all(max(image.size) <= _PIXEL_ART_SIDE for image in study.images.values()),
        "rater": None,
    }
    if rater is not None:
        found["rater"] = {"name": rater.name, "votes": rater.votes, "items": _items(store, rater)}
    return found


def enter(store: Store, body: Any) -> tuple[Rater, str]:
    """Let in who sent ``{"name": "...", "resume": false}``; an empty name gets a random one.

    Raises:
        RefusedError: The name cannot be used, or is somebody's already.
    """
    fields = _fields(body, {"name": str, "resume": bool})
    name = _checked_name(fields["name"])
    try:
        return store.enter(name, resume=fields["resume"])
    except NameTakenError as error:
        known = error.rater
        raise RefusedError(
            409,
            f"'{known.name}' takes part already.",
            taken={"name": known.name, "votes": known.votes, "of": store.study.votes_per_rater},
        ) from None


def vote(store: Store, rater: Rater, body: Any) -> dict[str, int]:
    """Count ``{"source": file id, "question": "Q", "choice": file id}``.

    Raises:
        RefusedError: An id is unknown, or the choice does not belong to the source.
    """
    fields = _fields(body, {"source": str, "question": str, "choice": str})
    image = store.by_file.get(fields["source"])
    if image is None:
        raise RefusedError(404, "this study has no such image")
    if fields["question"] not in QUESTIONS:
        raise RefusedError(404, f"there is no such question; they are {', '.join(QUESTIONS)}")
    methods = {file: method for method, file in image.translations.items()}
    if fields["choice"] not in methods:
        raise RefusedError(404, "the choice is not one of this image's versions")
    shown = order_of_methods(store.study.seed, rater.id, image.id, image.translations)
    votes = store.vote(rater.id, image.id, fields["question"], methods[fields["choice"]], shown)
    return {"votes": votes, "of": store.study.votes_per_rater}


def _items(store: Store, rater: Rater) -> list[dict[str, Any]]:
    study, answers = store.study, store.answers(rater.id)
    items = []
    for number in order_of_images(study.seed, rater.id, study.images):
        image = study.images[number]
        files = image.translations
        given = {key: answers.get((number, key)) for key in QUESTIONS}
        items.append(
            {
                "source": image.file,
                "width": image.size[0],
                "height": image.size[1],
                "choices": [files[method] for method in order_of_methods(study.seed, rater.id, number, files)],
                "answers": {key: files[method] for key, method in given.items() if method is not None},
            }
        )
    return items


def _fields(body: Any, kinds: dict[str, type]) -> dict[str, Any]:
    """The named values of a request, each of its type and no others."""
    if not isinstance(body, dict) or body.keys() != kinds.keys():
        raise RefusedError(400, f"the request must hold exactly: {', '.join(kinds)}")
    for name, kind in kinds.items():
        value = body[name]
        if not isinstance(value, kind) or (isinstance(value, str) and len(value) > _LONGEST_ID):
            words = f"text of at most {_LONGEST_ID} characters" if kind is str else "true or false"
            raise RefusedError(400, f"'{name}' must be {words}")
    return body


def _checked_name(text: str) -> str | None:
    """A name that is safe in any table: spreadsheets run what begins with =, +, - or @."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        return None
    if len(name) > LONGEST_NAME:
        raise RefusedError(400, f"a name has at most {LONGEST_NAME} characters")
    if not name[0].isalnum() or not all(letter.isalnum() or letter in _PUNCTUATION for letter in name):
        raise RefusedError(
            400, "a name begins with a letter or digit and holds only letters, digits, spaces and . - _ '"
        )
    return name
