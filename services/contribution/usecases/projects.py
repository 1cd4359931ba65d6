"""What can be done with projects: add, sign, agree to their terms, remember what they say of themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import delete, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from libs.boinc.account import canonical_url
from libs.boinc.catalogue import ListedProject as Listed
from libs.boinc.web import ProjectConfig
from libs.common.auth import Principal, Role
from libs.common.db import Session
from libs.common.errors import conflict, forbidden, invalid, not_found
from libs.common.ids import new_id
from services.contribution.models import Consent, Contribution, KeptTerms, ListedProject, Project, Visit
from services.contribution.settings import Manager
from services.contribution.usecases.lending import say

log = structlog.get_logger(__name__)

VISIT_EVERY = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Known:
    """A project with what it last said, and what the caller's organisation last agreed to."""

    project: Project
    visit: Visit | None
    consent: Consent | None

    @property
    def has_other_terms(self) -> bool:
        """Whether the project's terms are no more those that were agreed to."""
        if self.visit is None or self.consent is None:
            return False
        return self.visit.terms_sha256 != self.consent.terms_sha256


@dataclass(frozen=True, slots=True)
class Agreed:
    """A consent, and the text of what was agreed to; None: it was before texts were kept."""

    consent: Consent
    terms: str | None


async def add_project(session: Session, name: str, url: str, now: datetime) -> Project:
    """Keep a project under its canonical address. Raises 422 at `url`, 409 when it is known already."""
    project = Project(id=new_id(), name=name, url=checked_url(url), created_at=now)
    session.add(project)
    try:
        await session.flush()
    except IntegrityError:
        raise conflict("A project of this address exists.", field="url") from None
    return project


def checked_url(url: str) -> str:
    """The canonical address. Raises 422 at `url`."""
    try:
        return canonical_url(url)
    except ValueError as error:
        raise invalid("url", f"The address {error}.", "Give the project's master URL.") from None


async def find_project(session: Session, project_id: UUID) -> Project:
    """One project. Raises 404."""
    project = await session.get(Project, project_id)
    if project is None:
        raise not_found("project")
    return project


async def know(session: Session, who: Principal, projects: Sequence[Project]) -> list[Known]:
    """The projects with what they said and what was agreed to, in the order given."""
    ids = [project.id for project in projects]
    visits = await session.scalars(select(Visit).where(Visit.project_id.in_(ids)))
    seen = {row.project_id: row for row in visits}
    ours = (Consent.organisation_id == who.organisation_id) & Consent.project_id.in_(ids)
    consents = await session.scalars(select(Consent).where(ours).order_by(Consent.at))
    agreed: dict[UUID, Consent] = {}
    for row in consents:
        visit, before = seen.get(row.project_id), agreed.get(row.project_id)
        # Terms that were agreed to once are agreed to when the project comes back to them.
        if before is None or visit is None or before.terms_sha256 != visit.terms_sha256:
            agreed[row.project_id] = row
    return [Known(project, seen.get(project.id), agreed.get(project.id)) for project in projects]


async def sign_project(
    session: Session,
    who: Principal,
    manager: Manager | None,
    project_id: UUID,
    signature: str | None,
    now: datetime,
) -> Project:
    """Keep, or forget, the signature of a project's URL, and tell it with every contribution to the project.

    Raises 404, 409 without a key, 422 for another's signature; 403 where it would be taken away from others who lend.
    """
    project = await find_project(session, project_id)
    if signature is None and await _is_lent_to_by_others(session, who, project_id):
        raise forbidden(
            "Other organisations lend to this project: without a signature their machines would leave it. "
            "An administrator can take it away."
        )
    if signature is not None:
        if manager is None:
            raise conflict(
                "This installation has no key for signatures.", "Set TIDES_BOINC_SIGNING_KEY_FILE first."
            )
        signature = signature.strip() + "\n"
        if not manager.key.verifies(project.url, signature):
            raise invalid(
                "url_signature",
                "This is no signature of exactly this project's URL by this installation's key.",
                f"Give what `tides boinc sign {project.url} --key FILE` prints.",
            )
    is_news = (project.url_signature is None) != (signature is None)
    project.url_signature = signature
    if is_news:
        living = (Contribution.project_id == project_id) & Contribution.gone.is_(False)
        query = select(Contribution).where(living).order_by(Contribution.id).with_for_update()
        for contribution in await session.scalars(query):
            await say(session, contribution, now)
    return project


async def _is_lent_to_by_others(session: Session, who: Principal, project_id: UUID) -> bool:
    if who.role is Role.ADMIN:
        return False
    living = (Contribution.project_id == project_id) & Contribution.gone.is_(False)
    others = select(Contribution.id).where(living, Contribution.organisation_id != who.organisation_id)
    return await session.scalar(others.limit(1)) is not None


async def remove_project(session: Session, who: Principal, project_id: UUID) -> None:
    """Forget a project that nobody ever lent to, and to whose terms no other organisation has agreed. Raises 409
    otherwise; an admin may forget what others agreed to."""
    await find_project(session, project_id)
    agreed = select(Consent.id).where(Consent.project_id == project_id)
    others = agreed.where(Consent.organisation_id != who.organisation_id).limit(1)
    if who.role is not Role.ADMIN and await session.scalar(others) is not None:
        raise conflict("Another organisation has agreed to the terms of this project.")
    try:
        await session.execute(delete(Project).where(Project.id == project_id))
    except IntegrityError:
        raise conflict("Somebody lends, or has lent, to this project.") from None


async def projects(session: Session, after: UUID | None, limit: int) -> Sequence[Project]:
    """Projects in the order they were added, beginning after this id."""
    query = select(Project).order_by(Project.id).limit(limit)
    return (await session.scalars(query if after is None else query.where(Project.id > after))).all()


async def note_seen(session: Session, project_id: UUID, config: ProjectConfig, now: datetime) -> None:
    """Remember what the project says of itself; terms that are others than before are said aloud."""
    said = {
        "seen_at": now,
        "master_url": config.master_url,
        "down": config.down,
        "failures": 0,
        "failing_since": None,
        "trouble": "The project is stopped for maintenance." if config.down else None,
    }
    terms = {
        "terms": config.terms.replace("\x00", ""),
        "terms_sha256": config.terms_hash,
        "terms_since": now,
    }
    row = upsert(Visit).values(project_id=project_id, due_at=now + VISIT_EVERY, **said, **terms)
    await session.execute(row.on_conflict_do_nothing())
    visit = await session.get_one(Visit, project_id, with_for_update=True, populate_existing=True)
    if visit.terms_sha256 != config.terms_hash:
        log.warning(
            "project.terms_changed",
            project=str(project_id),
            before=visit.terms_sha256,
            after=config.terms_hash,
        )
        said |= terms
    for name, value in said.items():
        setattr(visit, name, value)


async def agree(
    session: Session, who: Principal, project_id: UUID, terms_sha256: str, now: datetime
) -> Known:
    """Record that the caller agrees for its organisation to the terms that the project has now.

    Raises 404; 409 where the project was never asked, or has other terms by now. Again is the same consent.
    """
    project = await find_project(session, project_id)
    visit = await session.get(Visit, project_id, with_for_update={"read": True})
    if visit is None:
        raise conflict("This project was not asked for its terms yet.", "Check the project first.")
    if visit.terms_sha256 != terms_sha256:
        raise conflict(
            "These are not the terms that the project has now.",
            "Check the project, read its terms, and give their hash.",
            "terms_sha256",
        )
    row = upsert(Consent).values(
        id=new_id(),
        organisation_id=who.organisation_id,
        project_id=project_id,
        terms_sha256=terms_sha256,
        user_id=who.user_id,
        user_name=who.name,
        at=now,
    )
    await session.execute(row.on_conflict_do_nothing())
    kept = upsert(KeptTerms).values(project_id=project_id, terms_sha256=terms_sha256, terms=visit.terms)
    await session.execute(kept.on_conflict_do_nothing())
    log.info("project.terms_agreed", project=str(project_id), by=str(who.user_id), terms=terms_sha256)
    return (await know(session, who, [project]))[0]


async def consents(
    session: Session, who: Principal, project_id: UUID, after: UUID | None, limit: int
) -> Sequence[Consent]:
    """What the caller's organisation agreed to at the project, in the order of agreeing. Raises 404."""
    await find_project(session, project_id)
    ours = (Consent.organisation_id == who.organisation_id) & (Consent.project_id == project_id)
    query = select(Consent).where(ours).order_by(Consent.id).limit(limit)
    return (await session.scalars(query if after is None else query.where(Consent.id > after))).all()


async def agreed_terms(session: Session, who: Principal, project_id: UUID, terms_sha256: str) -> Agreed:
    """Terms that the caller's organisation agreed to, as they were then. Raises 404 for others."""
    mine = (Consent.organisation_id == who.organisation_id) & (Consent.project_id == project_id)
    consent = await session.scalar(select(Consent).where(mine, Consent.terms_sha256 == terms_sha256))
    if consent is None:
        raise not_found("consent", "List them at /v1/projects/{id}/consents.")
    kept = await session.get(KeptTerms, (project_id, terms_sha256))
    return Agreed(consent, None if kept is None else kept.terms)


async def replace_catalogue(session: Session, listed: Sequence[Listed]) -> None:
    """Keep these projects as the catalogue, and no others."""
    await session.execute(delete(ListedProject))
    unique = {each.url: each for each in listed}
    rows = [
        {
            "url": each.url,
            "name": _short(each.name, 200) or each.url[:200],
            "area": _short(each.area, 200),
            "specific_area": _short(each.specific_area, 200),
            "home": _short(each.home, 300),
            "description": each.description.replace("\x00", ""),
            "web_url": _short(each.web_url, 300),
            "runs_here": each.runs_here,
            "keywords": sorted(each.keywords),
        }
        for each in unique.values()
    ]
    if rows:
        await session.execute(insert(ListedProject), rows)


async def listed(
    session: Session, after: str | None, limit: int, *, only_runnable: bool
) -> Sequence[ListedProject]:
    """Projects of the catalogue in order of their address."""
    query = select(ListedProject).order_by(ListedProject.url).limit(limit)
    if only_runnable:
        query = query.where(ListedProject.runs_here.is_(True))
    return (await session.scalars(query if after is None else query.where(ListedProject.url > after))).all()


def _short(text: str, longest: int) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:longest]
