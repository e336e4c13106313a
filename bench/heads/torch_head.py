#!/usr/bin/env python3
"""What one writes in PyTorch to find an attention head: cross-entropy of its rows, by L-BFGS with a strong Wolfe search.

    torch_head.py TRAIN TEST --rank 32 --type float32 --seconds 30

TRAIN and TEST: directories with a list.txt. --rank 0: any X, from 0; else X = P Q^T from small random factors. One
thread. After every ten iterations a line of JSON: CPU seconds of the fit alone, and |F - B| / |B| on both.
"""

import argparse
import json
import time

import torch

import heads


def stacked(directory, dtype):
    """Queries, keys and attention of sequences of one length, as one batch."""
    sequences = heads.load(directory)
    return [torch.stack([torch.tensor(getattr(sequence, name)) for sequence in sequences]).to(dtype)
            for name in ("queries", "keys", "target")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--type", choices=("float32", "float64"), default="float32")
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    dtype = getattr(torch, arguments.type)
    train, test = stacked(arguments.train, dtype), stacked(arguments.test, dtype)
    d = train[0].shape[2]
    if arguments.rank:
        unknowns = [0.02 * torch.randn(d, arguments.rank, dtype=dtype) for _ in range(2)]
    else:
        unknowns = [torch.zeros(d, d, dtype=dtype)]
    for unknown in unknowns:
        unknown.requires_grad_()

    def logits(queries, keys):
        if arguments.rank:
            P, Q = unknowns
            return (queries @ P) @ (keys @ Q).transpose(1, 2)
        return (queries @ unknowns[0]) @ keys.transpose(1, 2)

    def error(batch):
        with torch.no_grad():
            F = torch.softmax(logits(*batch[:2]), 2)
            return (torch.linalg.vector_norm(F - batch[2]) / torch.linalg.vector_norm(batch[2])).item()

    optimizer = torch.optim.LBFGS(unknowns, lr=1, max_iter=10, history_size=20, line_search_fn="strong_wolfe",
                                  tolerance_grad=0, tolerance_change=0)

    def closure():
        optimizer.zero_grad()
        loss = -(train[2] * torch.log_softmax(logits(*train[:2]), 2)).sum()
        loss.backward()
        return loss

    seconds = 0.0
    while seconds < arguments.seconds:
        start = time.process_time()
        optimizer.step(closure)
        seconds += time.process_time() - start
        print(json.dumps({"seconds": seconds, "fit": error(train), "held_out": error(test)}), flush=True)


if __name__ == "__main__":
    main()
