"""Which status leads to which: the same rules for whatever has one."""

from __future__ import annotations

import pytest

from cqrs_ddd_advanced_core.exceptions import InvalidTransitionError


def check_transition(entity, name, action):
    """See an action lead to its target, or be refused where it is not legal: told from where to where, nothing changed.

    An action is a function of the entity, the status that it leads to, and the statuses in which it is legal.
    """
    do, target, legal = action
    status, before = entity.status, entity.model_dump()
    if status in legal:
        do(entity)
        assert entity.status is target
        return
    with pytest.raises(InvalidTransitionError, match=f"{name} is {status}, and cannot become {target}") as caught:
        do(entity)
    assert (caught.value.current, caught.value.target) == (status, target)
    assert entity.model_dump() == before
