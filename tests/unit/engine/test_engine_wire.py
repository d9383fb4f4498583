from __future__ import annotations

import inspect

import msgspec
import pytest

from recovery.engine.api import Access, EngineApi, NetworkConfig, RunState
from recovery.engine.client import EngineClient
from recovery.engine.engine import Engine
from recovery.engine.wire import Request, encode_arguments, methods, read_arguments
from recovery.errors import UsageError


def test_engine_and_client_have_the_whole_contract() -> None:
    names = {name for name, _ in inspect.getmembers(EngineApi, inspect.isfunction) if not name.startswith("_")}
    assert set(methods()) == names
    for name in names:
        wanted = list(inspect.signature(getattr(EngineApi, name)).parameters)
        for implementation in (Engine, EngineClient):
            assert list(inspect.signature(getattr(implementation, name)).parameters) == wanted, name


def test_arguments_survive_the_wire() -> None:
    config = NetworkConfig(interface="eno1", dhcp=False, address="192.0.2.1/24", vlan=3)
    line = msgspec.json.encode(
        Request(id=1, method="configure_network", params=encode_arguments("configure_network", (config,), {}))
    )
    assert read_arguments(msgspec.json.decode(line, type=Request)) == {"config": config}
    params = encode_arguments("start", ("id",), {"confirmations": {"wwn:5": "S1"}})
    assert read_arguments(Request(id=1, method="start", params=params)) == {
        "plan_id": "id", "confirmations": {"wwn:5": "S1"},
    }  # fmt: skip
    assert methods()["state"][1] is RunState


def test_what_does_not_fit_is_refused_without_repeating_it() -> None:
    with pytest.raises(UsageError, match="no method"):
        read_arguments(Request(id=1, method="close"))
    with pytest.raises(UsageError, match="no parameter"):
        read_arguments(Request(id=1, method="state", params={"x": msgspec.Raw(b"1")}))
    bad = msgspec.Raw(b'{"secret": 5, "password": "hunter2"}')
    with pytest.raises(UsageError, match="not right") as caught:
        read_arguments(Request(id=1, method="connect", params={"access": bad}))
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__context__)
    assert Access(secret="x") == Access(secret="x")
