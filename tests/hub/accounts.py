"""Who may do what on the loopback Hub: fixed tokens, and the answer of /api/whoami-v2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Account:
    """`role`: write, read or fineGrained; `scopes`: permissions of a fine-grained token on the own name."""

    name: str
    role: str
    orgs: tuple[tuple[str, str], ...] = ()
    scopes: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        """Whether the namespace is the account's own or one of its organisations."""
        return namespace == self.name or namespace in dict(self.orgs)

    def writes(self, namespace: str) -> bool:
        """Whether the token may write to repositories of the namespace."""
        allowed = self.role == "write" or "repo.write" in self.scopes
        return allowed and self.owns(namespace) and dict(self.orgs).get(namespace) != "read"

    def whoami(self) -> dict[str, Any]:
        """Answer of /api/whoami-v2."""
        token: dict[str, Any] = {"displayName": "test", "role": self.role}
        if self.role == "fineGrained":
            entity = {"type": "user", "name": self.name, "_id": "0"}
            token["fineGrained"] = {
                "canReadGatedRepos": True,
                "global": [],
                "scoped": [{"entity": entity, "permissions": list(self.scopes)}],
            }
        orgs = [{"type": "org", "name": org, "roleInOrg": role} for org, role in self.orgs]
        return {
            "type": "user",
            "id": "0",
            "name": self.name,
            "fullname": self.name,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": token},
        }


_ORGS = (("lab", "admin"), ("library", "read"))

TOKENS = {
    "hf_writer": Account("ada", "write", _ORGS),
    "hf_reader": Account("ada", "read", _ORGS),
    "hf_narrow": Account("ada", "fineGrained", scopes=("repo.content.read",)),
    "hf_fine": Account("ada", "fineGrained", scopes=("repo.content.read", "repo.write")),
    "hf_other": Account("bob", "write"),
}
