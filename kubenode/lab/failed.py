"""The error of machines in the lab that did not do what they should."""

from kubenode.errors import HostError


class LabFailed(HostError):
    """A virtual machine, or what a test does with it, did not get where it should; the message says how far it came."""

    advice = (
        "Read serial.log and qemu.log in the machine's work folder. On a busy machine without KVM everything takes "
        "long: try again when it is idle."
    )
