"""Problems as RFC 9457 answers: what is wrong, where, what to do. Nothing that was sent is ever echoed."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

log = structlog.get_logger(__name__)

_UP_TO_QUOTE = re.compile(r"[,:]")
MEDIA_TYPE = "application/problem+json"
_TITLES = {
    400: "The request cannot be read",
    401: "Who are you?",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    409: "In conflict with the present state",
    412: "Changed in the meantime",
    413: "Too large",
    422: "Not acceptable as given",
    428: "Say which revision you have seen",
    429: "Too often",
    500: "Our fault",
    503: "Not available now",
}
_SLUGS = {
    400: "unreadable",
    401: "unauthorised",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    409: "conflict",
    412: "changed",
    413: "too-large",
    422: "invalid",
    428: "revision-required",
    429: "too-often",
    500: "internal",
    503: "unavailable",
}


class Problem(HTTPException):
    """An answer that is not success. `detail` and `remedy` are sentences for a person, without any secret."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        remedy: str | None = None,
        slug: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.status = status
        self.field = field
        self.remedy = remedy
        self.slug = slug or _SLUGS.get(status, "problem")

    @property
    def title(self) -> str:
        """What kind of problem it is, the same for every one of its status."""
        return title_of(self.status)


def title_of(status: int) -> str:
    """What kind of problem it is, in words."""
    return _TITLES.get(status, "A problem")


def invalid(field: str, detail: str, remedy: str | None = None) -> Problem:
    """422: this field cannot be taken."""
    return Problem(422, detail, field=field, remedy=remedy)


def not_found(what: str, remedy: str | None = None) -> Problem:
    """404: `what` in words, e.g. `resource`; never the name that was asked for."""
    return Problem(404, f"No such {what}.", remedy=remedy)


def conflict(detail: str, remedy: str | None = None, field: str | None = None) -> Problem:
    """409: right in form, but not now."""
    return Problem(409, detail, field=field, remedy=remedy)


def forbidden(detail: str, remedy: str | None = None) -> Problem:
    """403: known, but not entitled."""
    return Problem(403, detail, remedy=remedy)


def unauthorised(detail: str, remedy: str | None = None) -> Problem:
    """401: no valid access token."""
    return Problem(401, detail, remedy=remedy, headers={"WWW-Authenticate": "Bearer"})


def too_often(retry_after_s: int) -> Problem:
    """429: come again when so much time has passed."""
    headers = {"Retry-After": str(retry_after_s)}
    return Problem(429, f"Too many requests; the next is taken in {retry_after_s} s.", headers=headers)


def unavailable(detail: str, retry_after_s: int | None = None) -> Problem:
    """503: try again later."""
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None
    return Problem(503, detail, headers=headers)


def answer(problem: Problem, **more: Any) -> JSONResponse:
    """The problem as a response."""
    body: dict[str, Any] = {
        "type": f"urn:tides:problem:{problem.slug}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "field": problem.field,
        "remedy": problem.remedy or _usual_remedy(problem),
        **more,
    }
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    body["request_id"] = request_id
    shown = {name: value for name, value in body.items() if value is not None}
    return JSONResponse(shown, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def _usual_remedy(problem: Problem) -> str | None:
    if problem.status != 422 or problem.field is None:
        return None
    return f"Correct {'the body' if problem.field == 'body' else f'`{problem.field}`'} and send it again."


def install(app: FastAPI) -> None:
    """Answer every exception of the app as a problem."""
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(ResponseValidationError, _on_unexpected)


def incident(error: BaseException) -> JSONResponse:
    """Log an unexpected exception with its traceback and answer with nothing but the number to look for."""
    incident_id = uuid4().hex[:12]
    log.error("http.failed", incident=incident_id, exc_info=error)
    detail = f"Something failed inside Tides. It is logged as incident {incident_id}."
    remedy = "Try again; if it stays, give the incident to your operator."
    return answer(Problem(500, detail, remedy=remedy), incident=incident_id)


async def _on_unexpected(_request: Request, error: Exception) -> JSONResponse:
    return incident(error)


async def _on_http(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Problem):
        return answer(error)
    assert isinstance(error, HTTPException)
    # Detail of a framework's exception may quote the request: our words instead.
    return answer(
        Problem(
            error.status_code,
            _WORDS.get(error.status_code, "The request was refused."),
            headers=error.headers,
        )
    )


_WORDS = {
    400: "The body is not valid JSON.",
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
}


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    items = error.errors()[:50]
    found = [{"field": _path_of(item["loc"]), "detail": _detail_of(item)} for item in items]
    first = found[0]
    problem = Problem(
        422, f"{first['field']}: {first['detail']}", field=first["field"], remedy=_remedy_of(items[0])
    )
    return answer(problem, errors=found)


def _path_of(location: tuple[int | str, ...]) -> str:
    parts = [str(part)[:64] for part in location if part not in ("body", "query", "path", "header")]
    return ".".join(parts) or "body"


def _remedy_of(item: Mapping[str, Any]) -> str | None:
    kind, context = str(item["type"]), item.get("ctx", {})
    if kind in ("missing", "extra_forbidden"):
        return "Send it." if kind == "missing" else "Leave it out."
    if kind in ("enum", "literal_error"):
        return f"Give {context['expected']}."
    if kind == "string_too_long":
        return f"Give at most {context['max_length']} characters."
    if kind.startswith("uuid_"):
        return "Give an id as lists show it."
    return None


def _detail_of(item: Mapping[str, Any]) -> str:
    # Some of pydantic's own messages quote what was given, after a comma or a colon.
    kind, message = str(item["type"]), str(item["msg"])
    if kind == "union_tag_invalid":
        return f"is none of {item['ctx']['expected_tags']}"[:200]
    if kind.startswith("json_"):
        return "not valid JSON"
    if kind == "value_error":
        return message.removeprefix("Value error, ")[:200]
    if kind.endswith(("_parsing", "_type", "_inclusive")):
        return _UP_TO_QUOTE.split(message, maxsplit=1)[0][:200]
    return message[:200]
