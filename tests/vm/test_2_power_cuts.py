"""Power cuts at the three worst instants of one update, then a release whose agent is broken."""

import pytest

from kubenode.lab.node import LabNode
from kubenode.lab.story import BROKEN_AGENT, CHANNELS, FIRST, SECOND
from kubenode.lab.workshop import Workshop

pytestmark = pytest.mark.vm

SPARE_ROOT = (
    "import json,subprocess;t=json.loads(subprocess.run(['sfdisk','--json','/dev/vda'],capture_output=True).stdout);"
    "print([p['uuid'].lower() for p in t['partitiontable']['partitions'] if p.get('name')=='root-b'][0])"
)


def test_power_cuts(node: LabNode, workshop: Workshop) -> None:
    workshop.set_channels((SECOND, FIRST), CHANNELS)
    with workshop.serving():
        # 1. While the slot is written. The spare slot's name is taken away before the first byte is written.
        node.start()
        before = node.probe.python(SPARE_ROOT)
        node.begin_tick()
        node.wait_until(lambda: node.probe.python(SPARE_ROOT) != before, 300)
        node.cut_power()
        node.start()
        assert node.release() == FIRST
        assert node.entries() == [f"kubenode_{FIRST}.efi"]
        observed = node.dry_run()["status"]["observed"]
        assert observed["spare"] is None
        assert not observed["booted"]["trial"]

        # 2. Between staging and activation: the fleet is halted, so the release is staged and stays so.
        workshop.halt(True)
        status = node.tick_until("Staged", 240)
        assert status["observed"]["staged"]["version"] == SECOND
        node.cut_power()
        node.start()
        assert node.release() == FIRST
        assert node.entries() == [f"kubenode_{FIRST}.efi"]

        # 3. During the trial boot.
        workshop.halt(False)
        boot = node.probe.boot_id()
        node.begin_tick()
        node.probe.wait_reboot(boot, 400)
        assert f"kubenode_{SECOND}+2-1.efi" in node.entries(), "still on trial, one of three tries begun"
        node.cut_power()
        node.start()
        assert node.release() == SECOND
        node.wait_blessed()
        status = node.tick()
        assert status["phase"] == "Up to date", status
        assert node.entries() == [f"kubenode_{FIRST}.efi", f"kubenode_{SECOND}.efi"]
        assert node.root_is_read_only()

        # A release whose agent cannot even be imported: systemd alone brings the machine back.
        workshop.set_channels((BROKEN_AGENT, SECOND, FIRST), CHANNELS)
        boot = node.probe.boot_id()
        node.begin_tick()
        trial = node.probe.wait_reboot(boot, 400)
        node.probe.wait_reboot(trial, 600)
        assert node.release() == SECOND
        status = node.tick()
        assert [it["version"] for it in status["poisoned"]] == [BROKEN_AGENT]
        assert status["phase"] == "Stuck"
        assert BROKEN_AGENT in status["message"]


def test_a_flipped_byte_in_the_booted_root_is_caught(node: LabNode) -> None:
    node.flip_byte("root-a")
    node.start()
    done = node.probe.run(
        ["/usr/bin/python3", "-c", "f=open('/dev/mapper/root','rb')\nwhile f.read(1<<20): pass"], 300, check=False
    )
    assert done.returncode != 0
    assert b"Input/output error" in done.stderr
    log = node.probe.run(["/usr/bin/journalctl", "--dmesg", "--grep", "is corrupted"], 120).text
    assert "verity" in log
