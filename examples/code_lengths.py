"""Code lengths: a probability model is a code, and nats over log 2 are its bits.

The symbols are the grey levels of the digits. Huffman's code needs at least the entropy and less
than one bit more, per block of symbols; a code built for another distribution costs the
Kullback-Leibler divergence on top. That is why a bound in nats is the size of a file.
"""

import heapq
import itertools
import math

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels
from sklearn.datasets import load_digits


def huffman(p: list[float]) -> list[str]:
    """The binary code word of each symbol: join the two rarest until one tree is left."""
    heap = [(weight, i, [i]) for i, weight in enumerate(p)]
    heapq.heapify(heap)
    words = [""] * len(p)
    for fresh in itertools.count(len(p)):
        if len(heap) == 1:
            return words
        (first, _, zeros), (second, _, ones) = heapq.heappop(heap), heapq.heappop(heap)
        for bit, symbols in (("0", zeros), ("1", ones)):
            for symbol in symbols:
                words[symbol] = bit + words[symbol]
        heapq.heappush(heap, (first + second, fresh, zeros + ones))
    raise AssertionError


def decoded(bits: str, words: list[str]) -> list[int]:
    """Read a string of bits: no code word begins another, so that it can be read in one way."""
    symbol_of, symbols, first = {word: i for i, word in enumerate(words)}, [], 0
    for last in range(1, len(bits) + 1):
        if bits[first:last] in symbol_of:
            symbols.append(symbol_of[bits[first:last]])
            first = last
    return symbols


def main() -> None:
    args = arguments(__doc__)
    levels = torch.from_numpy(load_digits().data).long()  # (1797, 64), levels 0 … 16
    p = torch.bincount(levels.flatten(), minlength=17).double()
    p = p / p.sum()
    entropy = float(-(p * p.log2()).sum())
    words = huffman(p.tolist())
    lengths = torch.tensor([len(word) for word in words]).double()
    message = levels[:20].flatten().tolist()
    bits = "".join(words[symbol] for symbol in message)

    # A wrong model: black for white. Its code is used on pixels drawn from the right one.
    wrong = p.flip(0)
    divergence = float((p * (p / wrong).log2()).sum())
    drawn = torch.multinomial(p, 20_000, True, generator=torch.Generator().manual_seed(0))
    ideal = -wrong.log2()[drawn]
    words_of_wrong = huffman(wrong.tolist())
    coded = "".join(words_of_wrong[symbol] for symbol in drawn.tolist())
    paid = float((p * torch.tensor([len(word) for word in words_of_wrong])).sum())
    error = 4 * float(ideal.std()) / math.sqrt(len(drawn))
    shannon = (-p.log2()).ceil()

    blocks, most = {}, 2 if args.quick else 3
    q = p
    for n in range(1, most + 1):
        blocks[n] = float((q * torch.tensor([len(w) for w in huffman(q.tolist())])).sum()) / n
        q = torch.outer(q, p).flatten()
    huffman_bits = float((p * lengths).sum())
    rows = [
        ("entropy, bits per pixel", entropy, None, None),
        ("Huffman, bits per pixel", huffman_bits, None, None),
        ("Huffman − entropy", huffman_bits - entropy, (0, 1), None),
        ("blocks of 2: excess", blocks[2] - entropy, (0, 0.5), None),
        ("Kraft's sum of Huffman's code", (2**-lengths).sum(), 1, 1e-12),
        ("ideal lengths rounded up: excess", (p * shannon).sum() - entropy, (0, 1), None),
        ("wrong model on drawn pixels: entropy + KL", ideal.mean(), entropy + divergence, error),
        ("wrong model's Huffman code of them, bits", len(coded) / len(drawn), paid, 2 * error),
        ("code of a uniform model, bits", math.log2(17), None, None),
        ("symbols misread in a coded message", decoded(bits, words) != message, 0, 0),
    ]
    figure, (word, block) = panels("Length of a level's code word", "Bits per pixel")
    word.bar(range(17), lengths.tolist(), color=DATA, label="Huffman")
    word.plot(range(17), -p.log2(), "o", color=MODEL, label="−log₂ p")
    word.set(xlabel="grey level", ylabel="bits")
    block.axhline(entropy, color=DATA, label="entropy")
    ns = list(blocks)
    block.plot(ns, [entropy + 1 / n for n in ns], "--", color=DATA, label="entropy + 1/n")
    block.plot(ns, list(blocks.values()), "o-", color=MODEL, label="Huffman, blocks of n")
    block.axhline(math.log2(17), color=MARK, label="a uniform model: entropy + KL")
    block.set(xlabel="pixels in a block, n", xticks=ns)
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
