"""The catalogue of projects that every BOINC client comes with: `all_projects_list.xml`."""

from dataclasses import dataclass

from libs.boinc import lenient
from libs.boinc.account import canonical_url
from libs.boinc.lenient import Node

PLATFORM = "x86_64-pc-linux-gnu"
LARGEST_CATALOGUE = 8 * 1024 * 1024
_NEEDS_MORE = ("vbox", "docker", "podman", "cuda", "opencl", "nvidia", "ati", "amd", "intel_gpu", "metal")


@dataclass(frozen=True, slots=True)
class ListedProject:
    """A project of the catalogue."""

    name: str
    url: str
    """Canonical."""
    web_url: str
    area: str
    specific_area: str
    description: str
    home: str
    """Who runs it."""
    platforms: tuple[str, ...]
    keywords: frozenset[int]

    @property
    def runs_here(self) -> bool:
        """Whether it has work for a plain 64-bit Linux machine: no graphics card, no machine or container in it."""
        return any(is_plain_linux(platform) for platform in self.platforms)


def read_catalogue(body: bytes) -> tuple[ListedProject, ...]:
    """The projects in the file, those with an address that no client would take left out. Raises ValueError."""
    if len(body) > LARGEST_CATALOGUE:
        raise ValueError(f"The catalogue is larger than {LARGEST_CATALOGUE >> 20} MiB.")
    root = lenient.find_root(lenient.decode(body), "projects")
    if root is None:
        raise ValueError("This is no catalogue of BOINC projects: it has no <projects>.")
    found = [_listed(each) for each in root.all("project")]
    return tuple(project for project in found if project is not None)


def _listed(node: Node) -> ListedProject | None:
    try:
        url = canonical_url(node.get("url"))
    except ValueError:
        return None
    platforms = node.find("platforms") or Node("platforms")
    return ListedProject(
        name=node.get("name"),
        url=url,
        web_url=node.get("web_url") or url,
        area=node.get("general_area"),
        specific_area=node.get("specific_area"),
        description=node.get("description"),
        home=node.get("home"),
        platforms=tuple(each.text.strip() for each in platforms.all("name")),
        keywords=frozenset(
            int(word) for word in node.get("keywords").split() if word.isdigit() and len(word) < 9
        ),
    )


def is_plain_linux(platform: str) -> bool:
    """Whether a platform, with its plan class in brackets, is 64-bit Linux without a graphics card or a box in it."""
    name, _, plan = platform.partition("[")
    return name == PLATFORM and not any(word in plan.lower() for word in _NEEDS_MORE)
