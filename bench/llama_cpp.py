"""llama.cpp beside fast_decode.py, in a process of its own: llama_cpp.py FILE THREADS, in an environment with `xllamacpp`.

Each line of standard input, "PROMPT TOKENS", is answered by one line of JSON: seconds of the prompt, seconds of the
tokens after its first, and the CPU seconds of this process for both together.
"""

import json
import os
import resource
import sys

from xllamacpp import CommonParams, Server


def cpu_seconds() -> float:
    """Of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # it logs to both
    os.dup2(1, 2)
    params = CommonParams()
    params.model.path, threads = sys.argv[1], int(sys.argv[2])
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 1024, 1, 0
    server = Server(params)
    for line in sys.stdin:
        prompt, tokens = map(int, line.split())
        request = {"prompt": [1 + i for i in range(prompt)], "n_predict": tokens, "ignore_eos": True}
        before = cpu_seconds()
        answer = server.handle_completions({**request, "cache_prompt": False, "temperature": 0})
        spent = cpu_seconds() - before
        times = (json.loads(answer) if isinstance(answer, str) else answer)["timings"]
        said = {"prompt_s": times["prompt_ms"] / 1e3, "tokens_s": times["predicted_ms"] / 1e3, "cpu_s": spent}
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
