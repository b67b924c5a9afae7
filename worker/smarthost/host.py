"""The way to a host name: its ports in turn, its credentials in turn, its share of connections."""

import hashlib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from proxy import log
from proxy.config.model import Postmark, Stream
from proxy.config.secrets import Secret
from proxy.metrics import relaying
from worker.pauses import Reason
from worker.replies import ConnectFailure
from worker.smarthost.connection import Connection
from worker.smarthost.endpoints import Endpoint, Endpoints
from worker.smarthost.handshake import Course
from worker.smarthost.opening import connect
from worker.smarthost.sasl import Login
from worker.smarthost.tls import TrustStore, TrustStoreUnusable
from worker.verdict import Blame, judge_connect

_TURN_S = 5.0


class RouteClosed(Exception):
    """No connection can be had by any endpoint or credential; `reason` says whose fault it is.

    `route` is the name of the way, with its credentials as they were when the first was tried.
    """

    def __init__(self, reason: Reason, detail: str, route: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.route = route


@dataclass(frozen=True, slots=True)
class Way:
    """Where the mail of a stream goes and with which credentials, in the order of preference.

    Two streams with an equal way share their connections.
    """

    host: str
    credentials: tuple[tuple[Secret, Secret], ...]  # user, password

    def logins(self) -> tuple[Login, ...]:
        """Return the credentials that can be read now."""
        found = []
        for user, password in self.credentials:
            name, word = user.read(), password.read()
            if name is not None and word is not None:
                log.conceal(name, word)
                found.append(Login(name, word, user.name))
        return tuple(found)

    @property
    def each_name(self) -> tuple[str, ...]:
        """Return what each credential is called, as a `Login` is."""
        return tuple(user.name for user, _ in self.credentials)

    def route(self) -> str:
        """Return a name for this way with its credentials as they are now.

        Whoever goes by the same ones finds the same name; where there are none it is that of the
        places where they should be. It holds 64 bits of a hash of them:
        enough to tell them apart, too little to tell what they are.
        """
        found = hashlib.blake2b(self.host.encode(), digest_size=8, person=b"franker")
        logins = self.logins()
        if not logins:
            found.update(self.names.encode())
        for login in logins:
            for word in (login.user, login.password):
                found.update(hashlib.blake2b(word.encode()).digest())
        return found.hexdigest()

    @property
    def names(self) -> str:
        """Where the credentials should be, for people."""
        return ", ".join(
            user.name if user == password else f"{user.name} and {password.name}"
            for user, password in self.credentials
        )


def way_of(stream: Stream, postmark: Postmark) -> Way:
    """Return the way of `stream`: its kind decides the host, its secrets the login."""
    broadcast = stream.kind == "broadcast"
    host = postmark.broadcast_host if broadcast else postmark.transactional_host
    if stream.token:
        return Way(host, tuple((secret, secret) for secret in stream.token))
    return Way(host, tuple(zip(stream.access_key, stream.secret_key, strict=False)))


class Smarthost:
    """One host name of Postmark: which ports work, and how to open a connection."""

    def __init__(self, host: str, postmark: Postmark, trust: TrustStore, local_name: str) -> None:
        """`local_name` is what EHLO says."""
        self.host = host
        self._postmark = postmark
        self._trust = trust
        self._local_name = local_name
        self._endpoints = Endpoints(host, postmark.ports)

    async def open(
        self, logins: "Logins", course: Course, avoid: Endpoint | None = None
    ) -> tuple[Connection, Login]:
        """Return a connection, ready for mail, by the first endpoint and credential that work.

        Each attempt follows `course`. `avoid`, where something just went wrong, is tried last.

        Raises:
            RouteClosed: none does.
        """
        route = logins.way.route()
        login = logins.first()
        if login is None:
            lacking = f"no credential: {logins.way.names} is not set"
            raise RouteClosed(Reason.CREDENTIALS, lacking, route)
        try:
            context = self._trust.context()
        except TrustStoreUnusable as error:
            raise RouteClosed(Reason.TLS, str(error), route) from error
        details = []
        order = self._endpoints.order(time.monotonic())
        for endpoint in sorted(order, key=lambda endpoint: endpoint == avoid):
            failure = None
            while login is not None:
                try:
                    connection = await self._connect(endpoint, login, context, course)
                except ConnectFailure as error:
                    failure = error
                    if judge_connect(error) is not Blame.CREDENTIALS:
                        break
                    login = logins.refused(login)
                else:
                    self._worked(endpoint, connection)
                    return connection, login
            assert failure is not None
            blame = judge_connect(failure)
            if blame is Blame.CREDENTIALS:
                raise RouteClosed(Reason.CREDENTIALS, f"{logins.way.names}: {failure}", route)
            self.failed(endpoint, str(failure))
            if blame is Blame.HOST:
                raise RouteClosed(Reason.TLS, f"{endpoint}: {failure}", route)
            details.append(f"{endpoint.port}: {failure}")
        raise RouteClosed(Reason.UNREACHABLE, "; ".join(details), route)

    async def _connect(
        self,
        endpoint: Endpoint,
        login: Login | None,
        context: ssl.SSLContext,
        course: Course | None = None,
    ) -> Connection:
        return await connect(
            endpoint,
            login,
            tls=context,
            auth=self._postmark.auth,
            local_hostname=self._local_name,
            course=course,
        )

    def _worked(self, endpoint: Endpoint, connection: Connection) -> None:
        if self._endpoints.is_down(endpoint.port):
            log.endpoint_up(endpoint.host, endpoint.port)
        self._endpoints = self._endpoints.after_success(endpoint.port, time.monotonic())
        relaying.ENDPOINT_UP.labels(endpoint.host, str(endpoint.port)).set(1)
        if connection.certificate_expiry is not None:
            relaying.CERTIFICATE_EXPIRY.labels(self.host).set(connection.certificate_expiry)

    async def look_again(self) -> None:
        """Try the ports known as down, without login or mail, where another one works."""
        if self._endpoints.all_down:
            return  # probed with every pause of the route
        for port in self._endpoints.ports:
            if not self._endpoints.is_down(port):
                continue
            endpoint = Endpoint(self.host, port)
            try:
                connection = await self._connect(endpoint, None, self._trust.context())
            except (ConnectFailure, TrustStoreUnusable) as error:
                self.failed(endpoint, str(error))
            else:
                self._worked(endpoint, connection)
                await connection.close()

    def failed(self, endpoint: Endpoint, detail: str) -> None:
        """Remember that `endpoint` failed: others are tried before it."""
        if not self._endpoints.is_down(endpoint.port):
            log.endpoint_down(endpoint.host, endpoint.port, detail=detail)
        self._endpoints = self._endpoints.after_failure(endpoint.port, time.monotonic())
        relaying.ENDPOINT_UP.labels(endpoint.host, str(endpoint.port)).set(0)


@dataclass(slots=True)
class Logins:
    """The credentials of a way as they are now, and which of them were refused."""

    way: Way
    _refused: set[Login] = field(default_factory=set)

    def first(self) -> Login | None:
        """Return the credential to begin with: the first not refused lately; None: there is none.

        Secrets are read anew, so a mended file is used at once. When all were refused, a new round
        begins with the first.
        """
        logins = self.way.logins()
        if all(login in self._refused for login in logins):
            self._refused.clear()
        return self._next(logins)

    def refused(self, login: Login) -> Login | None:
        """Note a refusal of `login`; return the next to try, None when there is none left."""
        self._refused.add(login)
        return self._next(self.way.logins())

    def _next(self, logins: tuple[Login, ...]) -> Login | None:
        return next((login for login in logins if login not in self._refused), None)


class Holder(Protocol):
    """Who opens connections to a host within its budget."""

    @property
    def wants_connections(self) -> bool:
        """Tell whether a share would be used."""
        ...

    @property
    def open_connections(self) -> int:
        """Connections open or being opened."""
        ...


class Budget:
    """This worker's share of the connections to one host name, shared fairly by its channels."""

    def __init__(self, share: Callable[[], int]) -> None:
        self._share = share
        self._holders: list[Holder] = []

    def join(self, holder: Holder) -> None:
        """Let `holder` have a part from now on."""
        self._holders.append(holder)

    def leave(self, holder: Holder) -> None:
        """Let `holder` have a part no more."""
        self._holders.remove(holder)

    @property
    def in_use(self) -> int:
        """Connections open to this host by this worker."""
        return sum(holder.open_connections for holder in self._holders)

    def allowed(self, holder: Holder) -> int:
        """Return how many connections `holder` may have: an equal part among those with mail."""
        wanting = [one for one in self._holders if one.wants_connections or one is holder]
        part, rest = divmod(self._share(), len(wanting))
        # What cannot be divided goes round, so that nobody starves where there is less than one.
        turn = int(time.monotonic() / _TURN_S)
        return part + ((wanting.index(holder) + turn) % len(wanting) < rest)

    def room(self) -> bool:
        """Tell whether one more connection may be opened now."""
        return self.in_use < self._share()
