"""The small worlds that are explored to the end."""

from tests.quorum.explore import Small

A, B, C = range(3)

ALONE = Small(
    "a register that is there, and two that would create it",
    ((0, ("create", "swap")), (1, ("create", "look"))),
    ("create",),
    timeouts=2,
    forgets=0,
    kept=True,
)
CREATORS = Small("two that create it", ((0, ("create",)), (1, ("create",))), timeouts=0, forgets=0, unlost=True)
THREE = Small(
    "three that create it",
    ((0, ("create",)), (1, ("create",)), (2, ("create",))),
    # The first is accepted by C alone, since the second has taken B from it. The third has not begun.
    opening=((0, (A, B, C)), (0, (B, C)), (1, (A, B, C)), (1, (A, B)), (0, (C, B))),
    timeouts=0,
    forgets=0,
    unlost=True,
)
RENEWALS = Small("a renewal, and a reader that settles it", ((0, ("swap",)), (1, ("look", "settle"))), ("create",))
REPAIR = Small(
    "a renewal with a repair, while another settles, and one server forgets",
    ((0, ("swap", "repair", "swap")), (1, ("look", "settle"))),
    ("create",),
    (2,),
)
RIVALS = Small(
    "two that swap, the one with a version that it used before",
    ((0, ("swap", "old", "swap")), (1, ("look", "settle", "swap"))),
    ("create",),
)
CHANGED = Small(
    "a repair that is late, and a create that fails",
    ((0, ("swap",)), (0, ("repair",)), (1, ("create",)), (2, ("look",))),
    ("create",),
    timeouts=2,
    forgetful=(0,),
)
FIRST = Small("two that create it and go on", ((0, ("create", "swap")), (1, ("create", "look"))))

SHORT = (ALONE, CREATORS, THREE, RENEWALS)
LONG = (REPAIR, RIVALS, CHANGED, FIRST)
