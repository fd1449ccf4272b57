"""Virtual machines for the demo and the tests: real images in QEMU.

In: release folders and stores made by the kubenode command. Out: observations of machines that really ran.
Images carry no back door: what the lab injects goes in as SMBIOS credentials, which only the hypervisor can give.
"""
