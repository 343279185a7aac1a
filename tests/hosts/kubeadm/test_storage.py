"""Space, folders and swap as df, du and the kernel print them."""

from __future__ import annotations

import pytest

from opsd.hosts.kubeadm import storage


def test_each_folder_is_told_with_its_file_system() -> None:
    read = storage.read_space(
        "/ /dev/mmcblk0p2 30000000 20000000 9000000 69% /\n"
        "/var/lib/etcd /dev/sda1 1000 400 600 40% /mnt/a disk\n"
    )

    assert read["/"].free_bytes == 9000000 * 1024
    assert read["/var/lib/etcd"] == storage.Space(
        path="/var/lib/etcd",
        device="/dev/sda1",
        size_bytes=1000 * 1024,
        free_bytes=600 * 1024,
        mount="/mnt/a disk",
    )


@pytest.mark.parametrize("text", ["/ df: /: Input/output error", "/ /dev/sda1 - - - - /"])
def test_what_df_does_not_print_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="df"):
        storage.read_space(text)


def test_sizes_of_folders_are_in_bytes_and_complaints_are_passed_over() -> None:
    assert storage.read_folders("12\t/var/lib/etcd\ndu: no\n") == {"/var/lib/etcd": 12 * 1024}


def test_swap_is_told_with_its_size_and_none_is_none() -> None:
    header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"

    assert storage.read_swaps(header) == ()
    assert storage.read_swaps(f"{header}/dev/zram0 partition 2048 0 100\n") == (
        storage.Swap(device="/dev/zram0", size_bytes=2 << 20),
    )


@pytest.mark.parametrize("text", ["", "/dev/sda2 partition 1 0 1\n", "Filename\n/dev/sda2 x\n"])
def test_what_the_kernel_does_not_print_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="/proc/swaps"):
        storage.read_swaps(text)
