"""Conversations of `solami serve`: each belongs to a connection, and outlives a lost one for a while."""

import secrets
import time
from dataclasses import dataclass, field

from ..pipeline import Reply
from ..session import DialogueSession

KEPT_TURNS = 20
"""Of a conversation, whose answers can be downloaded."""


@dataclass(eq=False)
class LiveConversation:
    """What is kept between the connections of a client.

    Attributes:
        session, character: of the talk.
        turns: the number of the last turn.
        id: that gives it back.
        owner: the connection that talks, None where it was lost, at the time `lost`.
        answered: the number of the session's last answer, whole or cancelled.
        heard: number and seconds of an answer that was interrupted; its history is shortened before the next turn.
        kept: content of the user's turn and reply by the turn's number.
    """

    session: DialogueSession
    character: str | None
    turns: int = 0
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    owner: object | None = None
    lost: float = 0.0
    answered: int = 0
    heard: tuple[int, float] | None = None
    kept: dict[int, tuple[list[dict], Reply]] = field(default_factory=dict)

    def take_back(self) -> None:
        """Makes the history of an interrupted answer what was heard of it."""
        (turn, seconds), self.heard = self.heard or (None, 0.0), None
        if turn == self.answered:
            self.session.truncate_answer(seconds)

    def keep(self, number: int, content: list[dict], reply: Reply) -> None:
        """Keeps an answer for downloads, and forgets the oldest of too many."""
        self.kept[number] = content, reply
        for old in list(self.kept)[:-KEPT_TURNS]:
            del self.kept[old]


class LiveConversations(dict):
    """Conversations by their ids, those of a lost connection for `seconds`, and at most `most` of these."""

    def __init__(self, seconds: float, most: int):
        super().__init__()
        self.seconds, self.most = seconds, most

    def forget_old(self) -> None:
        """Forgets what was lost too long ago, and the oldest of too many."""
        lost = sorted((each for each in self.values() if each.owner is None), key=lambda each: each.lost)
        for number, each in enumerate(lost):
            if each.lost < time.monotonic() - self.seconds or number < len(lost) - self.most:
                del self[each.id]
