"""Where the tensors of a file lie: inside it, and never on top of each other."""

from tapeout.base.errors import BadInput
from tapeout.importers.mapped import Mapped


def check_extents(file: Mapped, extents: list[tuple[int, int, str]]) -> None:
    """Raise `BadInput` unless the (begin, end, tensor name) extents lie in the file and none overlaps another."""
    last_end, last_name = 0, ""
    for begin, end, name in sorted(extents):
        if end > file.size:
            raise BadInput(
                file.name,
                f"tensor {name} spans bytes {begin:,} to {end:,}, the file ends at {file.size:,}",
                "it is truncated or damaged",
            )
        if begin < last_end:
            raise BadInput(file.name, f"tensors {last_name} and {name} overlap at byte {begin:,}")
        last_end, last_name = end, name
