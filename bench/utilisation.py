"""How near the decode schedule comes to the bound of the scarcest resource. Usage: utilisation.py [MODEL] [--chip NAME] [--context N].

Cycles are the schedule's and do not depend on this machine. The bound comes from graph and chip alone, at the memory's
peak rate: refresh and all other waits count against us.
"""

import argparse

from line import print_line
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.measure import costliest_wait, measure, unit_rows
from tapeout.flow.prepare import prepare_chip, prepare_model


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct", help="a name or a path")
    parser.add_argument("--chip", default="edge")
    parser.add_argument("--context", type=int, default=64, help="tokens held before the measured one")
    parser.add_argument("--planned", type=int, default=None, help="positions compiled for; the compiler's default")
    options = parser.parse_args()
    model = prepare_model(options.model)
    program = compile_model(model, prepare_chip(options.chip), options.planned)
    measures = measure(program, model.graph, options.context, 1)
    bound = measures.bound
    print_line(
        "utilisation",
        model=options.model,
        chip=options.chip,
        context=measures.context,
        planned=program.context,
        kv_in="external memory" if any(region.name == "kv" for region in program.external) else "SRAM",
        bound_by=bound.scarcest,
        bound_cycles=round(bound.least),
        cycles=measures.last.wall,
        held_cycles=measures.last.held,
        utilisation=measures.utilisation,
        matrix_busy=dict(unit_rows(measures))["matrix"],
        limit=0.9,
        costliest_wait=costliest_wait(measures),
        tokens_per_s_modelled=1 / (measures.last.wall * measures.seconds_per_cycle),
    )


if __name__ == "__main__":
    main()
