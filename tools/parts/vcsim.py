"""A vCenter for tests: govmomi's simulator, built once from tests/vcsim, with TLS of its own authority."""

import asyncio
import datetime as dt
import hashlib
import ipaddress
import os
import shutil
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from libs.common.clock import WallClock
from tools.parts import PartMissing, debian, slots

SOURCES = sorted((Path(__file__).parents[2] / "tests" / "vcsim").glob("*.go"))
LIBRARY = Path("usr/share/gocode")
PACKAGES = ["golang-go", "golang-github-vmware-govmomi-dev"]
UNPACKED = [
    "golang-1.19-go",
    "golang-1.19-src",
    "golang-github-vmware-govmomi-dev",
    "golang-github-google-uuid-dev",
]
START_SECONDS = 60.0
USERNAME = "tides@vsphere.local"
PASSWORD = "correct horse"
KEY_SIGNING = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


class Vcsim:
    """One vCenter on 127.0.0.1. Its inventory is new at every start; its port and certificate stay."""

    username = USERNAME
    password = PASSWORD

    def __init__(self) -> None:
        self._slot: slots.Slot | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._program = ""
        self._argv: list[str] = []
        self.port = 0

    @property
    def host(self) -> str:
        """The address without the port."""
        return "127.0.0.1"

    @property
    def url(self) -> str:
        """The SOAP endpoint."""
        return f"https://127.0.0.1:{self.port}/sdk"

    @property
    def ca_file(self) -> Path:
        """The authority that signed the server's certificate (PEM)."""
        return self._claimed().folder / "ca.pem"

    @property
    def thumbprint(self) -> str:
        """SHA-256 of the server's certificate, as colon-separated upper-case hex."""
        return bytes.fromhex(certificate_thumbprint(self._claimed().folder)).hex(":").upper()

    async def start(
        self,
        *,
        clusters: int = 1,
        hosts: int = 3,
        vms: int = 2,
        delays: Mapping[str, int] | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        """Start with one data centre: `hosts` per cluster, `vms` per resource pool, no stand-alone host.

        `delays` are milliseconds per method (`{"CloneVM_Task": 3000}`); `flags` are those of
        tests/vcsim/main.go. Started again, it is another cloud at the same address.
        """
        if self._slot is None:
            program = await asyncio.to_thread(find_program)
            self._slot = slots.claim("vcsim")
            self.port = slots.free_port()
            write_certificates(self._slot.folder)
            self._program = str(program)
        slow = ",".join(f"{name}:{milliseconds}" for name, milliseconds in (delays or {}).items())
        self._argv = [
            *(self._program, "-l", f"127.0.0.1:{self.port}"),
            *(
                "-tlscert",
                str(self._slot.folder / "server.pem"),
                "-tlskey",
                str(self._slot.folder / "server.key"),
            ),
            *("-username", USERNAME, "-password", PASSWORD, "-standalone-host", "0", "-method-delay", slow),
            *("-cluster", str(clusters), "-host", str(hosts), "-vm", str(vms), *flags),
        ]
        await self.restart()

    async def restart(self) -> None:
        """Start again as last time: the inventory is as new, sessions are gone."""
        await self.stop()
        slot = self._claimed()
        self._server = slot.spawn(
            "server", self._argv, {"PATH": os.environ.get("PATH", ""), "TMPDIR": str(slot.folder)}
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                while "ready: " not in slot.output_of("server"):
                    if self._server.poll() is not None:
                        raise PartMissing(f"vcsim did not start: {slot.output_of('server')[-2000:]}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise PartMissing(f"vcsim took more than {START_SECONDS:.0f} s to start.") from None

    async def stop(self) -> None:
        """End it; the port refuses connections until `restart`."""
        if self._server is not None:
            self._server.terminate()
            await asyncio.to_thread(self._server.wait, 10)

    async def kill(self) -> None:
        """End it at once."""
        if self._server is not None:
            await asyncio.to_thread(slots.kill_session, self._server)

    async def close(self) -> None:
        """End it and remove its folder."""
        await self.kill()
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    async def set_host_load(self, host_ref: str, cpu_mhz: int, mem_mb: int) -> None:
        """Set `summary.quickStats` of a host, by its managed object id ("host-21")."""
        await self._post("/lab/host", {"host": host_ref, "cpuMhz": cpu_mhz, "memMb": mem_mb})

    async def set_vm_load(self, vm_ref: str, cpu_mhz: int, mem_mb: int) -> None:
        """Set `summary.quickStats` of a machine: its CPU use and its guest memory."""
        await self._post("/lab/vm", {"vm": vm_ref, "cpuMhz": cpu_mhz, "memMb": mem_mb})

    async def set_connection(self, host_ref: str, state: str) -> None:
        """Show a host as `connected`, `notResponding` or `disconnected`."""
        await self._post("/lab/connection", {"host": host_ref, "state": state})

    async def set_metal(
        self, host_ref: str, cores: int, mem_mb: int, nodes: int = 1, gpus: Sequence[str] = ()
    ) -> None:
        """What a host is made of: cores (twice as many threads), memory, NUMA nodes, and a GPU of each name."""
        made = {"host": host_ref, "cores": cores, "memMb": mem_mb, "nodes": nodes, "gpus": list(gpus)}
        await self._post("/lab/metal", made)

    async def set_perf(self, entity: str, counters: Mapping[int, int]) -> None:
        """QueryPerf answers these constant values for the entity; other counters keep their series."""
        await self._post(
            "/lab/perf", {"entity": entity, "counters": {str(k): v for k, v in counters.items()}}
        )

    async def _post(self, path: str, body: Mapping[str, object]) -> None:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http,
            http.post(f"https://127.0.0.1:{self.port}{path}", json=body, ssl=context) as answer,
        ):
            if answer.status != 200:
                raise ValueError(f"vcsim refused {path}: {(await answer.text()).strip()}")

    def _claimed(self) -> slots.Slot:
        if self._slot is None:
            raise PartMissing("This vcsim was not started.")
        return self._slot


def find_program() -> Path:
    """The built simulator: from the cache, or built now (half a minute with a cold Go cache)."""
    known = os.environ.get("TIDES_TEST_VCSIM_PROGRAM")
    if known:
        return Path(known)
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES)).hexdigest()[:16]
    return debian.kept(f"vcsim-{digest}", _build)


def _build(program: Path) -> None:
    go, library = _find_go()
    half = program.with_suffix(".new")
    env = os.environ | {"GOPATH": str(library), "GO111MODULE": "off", "CGO_ENABLED": "0", "GOFLAGS": ""}
    command = [go, "build", "-ldflags", "-s -w", "-o", str(half), *map(str, SOURCES)]
    result = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise PartMissing(f"vcsim could not be built: {(result.stderr or result.stdout).strip()[-2000:]}")
    half.rename(program)


def _find_go() -> tuple[str, Path]:
    """The go command and the GOPATH that holds govmomi."""
    for _ in range(2):
        go = shutil.which("go") or shutil.which("go", path="/usr/bin:/usr/lib/go/bin")
        if go and (Path("/") / LIBRARY / "src/github.com/vmware/govmomi/simulator").exists():
            return go, Path("/") / LIBRARY
        if not debian.install(PACKAGES):
            break
    root = debian.unpack("golang", UNPACKED)
    return str(root / "usr/lib/go-1.19/bin/go"), root / LIBRARY


AUTHORITY = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tides tests")])


def write_certificates(folder: Path) -> None:
    """ca.pem with its ca.key, and server.pem with server.key that it signed for 127.0.0.1 and localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = (
        _certificate(AUTHORITY, AUTHORITY, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(KEY_SIGNING, critical=True)
    )
    signed = authority.sign(key, hashes.SHA256())
    (folder / "ca.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    _write_key(folder / "ca.key", key)
    renew_certificate(folder, folder)


def certificate_thumbprint(folder: Path) -> str:
    """SHA-256 of this folder's server.pem, lower hex."""
    der = ssl.PEM_cert_to_DER_cert((folder / "server.pem").read_text())
    return hashlib.sha256(der).hexdigest()


def renew_certificate(authority: Path, folder: Path) -> None:
    """Another server.pem with server.key, signed by the authority of the first folder, into the second."""
    signing = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    server_key = ec.generate_private_key(ec.SECP256R1())
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    server = (
        _certificate(server_name, AUTHORITY, server_key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer, critical=False)
    )
    signed = server.sign(signing, hashes.SHA256())
    (folder / "server.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    _write_key(folder / "server.key", server_key)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = WallClock().now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
