"""Who may connect (`Access`, in the manner of DRb's ACL) and how both sides prove who they are (`TLS`)."""

import dataclasses
import ipaddress
import ssl
from pathlib import Path

from discovery.errors import BadAccessRule

__all__ = ["TLS", "Access"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Access:
    """An access list: `Access("deny all allow 127.0.0.1 allow 10.0.0.0/8")`, in one text or several.

    The rule for the smallest network that holds an address decides; of two for the same network, `deny` does. An
    address that no rule names is admitted, unless the list allows somebody: then only those. The order of the rules
    means nothing.

    So `allow all deny X` keeps X out, either way round. In DRb's ACL, where this idea is from, `allow all` silently
    overrides every `deny`. Host names are no rules: anybody who answers for a name could let himself in.

    Raises:
        BadAccessRule: Names what is not a rule.
    """

    def __init__(self, *rules: str) -> None:
        words = " ".join(rules).split()
        if len(words) % 2:
            raise BadAccessRule(f"not pairs of allow or deny and an address: {' '.join(rules)!r}")
        self._rules = [_rule(verb, where) for verb, where in zip(words[::2], words[1::2], strict=True)]
        self._text = " ".join(words)

    def admits(self, host: str) -> bool:
        """Return whether that address (IPv4 or IPv6, as text) may connect."""
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        matching = [(size, deny) for size, deny, networks in self._rules if any(address in net for net in networks)]
        if matching:
            return not max(matching)[1]
        return all(deny for _, deny, _ in self._rules)

    def __repr__(self) -> str:
        return f"Access({self._text!r})"


def _rule(verb: str, where: str) -> tuple[int, bool, list[Network]]:
    """Return how specific the rule is, whether it denies, and which networks it is for."""
    if verb not in ("allow", "deny"):
        raise BadAccessRule(f"not allow or deny: {verb!r}")
    if where == "all":
        return -1, verb == "deny", [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    try:
        network = ipaddress.ip_network(where)
    except ValueError as exc:
        raise BadAccessRule(f"not an address, a network or all: {where!r} ({exc})") from exc
    # Prefixes of both families are comparable as they are: one address is only ever in networks of its own family.
    return network.prefixlen, verb == "deny", [network]


@dataclasses.dataclass(frozen=True)
class TLS:
    """Certificates, as PEM files. The same settings serve a server and a client.

    Args:
        certificate: What this side proves itself with. A server needs one; a client presents it if it has one.
        key: The key of the certificate, unless that file holds it too.
        authority: The certificate of the authority to trust. A client needs one: it checks the server's certificate,
            and the host name or address in it. A server with one admits only clients whose certificate it signed.
    """

    certificate: str | Path | None = None
    key: str | Path | None = None
    authority: str | Path | None = None

    def for_server(self) -> ssl.SSLContext:
        """Return a context for the accepting side.

        Raises:
            ValueError: Says what is wrong with the settings or the files.
        """
        if self.certificate is None:
            raise ValueError("a server with TLS needs a certificate and its key")
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        if self.authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def for_client(self) -> ssl.SSLContext:
        """Return a context for the connecting side.

        Raises:
            ValueError: Says what is wrong with the settings or the files.
        """
        if self.authority is None:
            raise ValueError("a client with TLS needs the authority that signed the server's certificate")
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # a connection that is idle must be silent: see `Client`
        try:
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
            if self.authority is not None:
                context.load_verify_locations(self.authority)
        except OSError as exc:  # ssl's own errors are among them, and none of them names the file
            raise ValueError(f"cannot use {self}: {exc}") from exc
        return context
