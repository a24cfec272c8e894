#!/usr/bin/env python3
"""Golden vectors for the tables of `maglev` and `rendezvous`, made from the definitions alone.

    pip install xxhash
    python3 tables.py        # writes maglev.json and rendezvous.json beside itself, the same each time (some seconds)

Written independently of the Rust code. `hash(x)` is XXH3 (64 bit) of x as 8 little-endian bytes, `seeded(x, s)` the same with
seed s. A key has slot `(hash(key) * slots) >> 64`. Each member has an id (1 or more) and a weight (1 or more).

- maglev: D. Eisenbud et al., "Maglev" (NSDI 2016), section 3.4; weights as in Envoy: a member passes its turn in iteration i
  (from 1) if i * weight is less than the largest weight times the slots it has taken.
- rendezvous: D. Thaler, C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (1998); weights by C. Schindelhauer,
  G. Schomaker, "Weighted Distributed Hash Tables" (2005): the highest weight / -ln(u) owns the slot, ties go to the lower id.

Both files have this shape:

    {
      "keys": [u64, ...],             the keys whose owners each table gives
      "tables": [{
        "slots": u32,                 a prime for maglev
        "members": [[id, weight], ...],   ids ascending
        "table": [id, ...],           by slot; only up to 251 slots
        "crc32": u32,                 of the table as little-endian u32, one for each slot: CRC-32 of zlib and gzip
        "counts": [u32, ...],         slots that each member owns, in the order of `members`
        "owners": [id, ...],          of `keys`
        "rankings": [[slot, [id, ...]], ...]    rendezvous only: some slots, all ids by descending score
      }, ...]
    }
"""

import json
import math
import random
import struct
import zlib
from collections import Counter
from pathlib import Path

import xxhash

U64_MAX = 2**64 - 1
# Tables up to here are written as a whole.
WHOLE = 251
MAGLEV_SLOTS = (7, 251, 65537)
RENDEZVOUS_SLOTS = (1, 97, 65537)
PI = (3, 1, 4, 1, 5)


def le64(number):
    return struct.pack("<Q", number)


def seeded(number, seed):
    return xxhash.xxh3_64_intdigest(le64(number), seed)


def hash64(number):
    return xxhash.xxh3_64_intdigest(le64(number))


def slot_of(key, slots):
    return hash64(key) * slots >> 64


def check_hash():
    """Values that the authors of xxHash publish with it (cli/xsum_sanity_check.c), and one that everybody knows."""
    prime32, prime64 = 2654435761, 11400714785074694797
    data, state = bytearray(), prime32
    for _ in range(12):
        data.append(state >> 56)
        state = state * prime64 & U64_MAX
    for length, seed, expected in (
        (0, 0, 0x2D06800538D394C2),
        (0, prime64, 0xA8A6B918B2F0364A),
        (1, 0, 0xC44BDFF4074EECDB),
        (1, prime64, 0x032BE332DD766EF8),
        (6, 0, 0x27B56A84CD2D7325),
        (6, prime64, 0x84589C116AB59AB9),
        (12, 0, 0xA713DAF0DFBB77E7),
        (12, prime64, 0xE7303E1B2336DE0E),
    ):
        found = xxhash.xxh3_64_intdigest(bytes(data[:length]), seed)
        assert found == expected, f"xxh3_64 of {length} bytes, seed {seed}: {found:#x}, not {expected:#x}"
    assert hash64(132_574) == seeded(132_574, 0) != seeded(132_574, 1)


def maglev(members, slots):
    assert slots > 1 and all(slots % factor for factor in range(2, math.isqrt(slots) + 1)), f"{slots} is no prime"
    max_weight = max(weight for _, weight in members)

    def preferences(id):
        offset, skip = seeded(id, 1) % slots, seeded(id, 2) % (slots - 1) + 1
        for j in range(slots):
            yield (offset + j * skip) % slots

    order = [(id, weight, preferences(id)) for id, weight in sorted(members)]
    taken_weight = {id: 0 for id, _ in members}
    table, free, iteration = [None] * slots, slots, 1
    while True:
        for id, weight, preferred in order:
            if iteration * weight < taken_weight[id]:
                continue
            taken_weight[id] += max_weight
            table[next(slot for slot in preferred if table[slot] is None)] = id
            free -= 1
            if free == 0:
                return table
        iteration += 1


def score(slot, id, weight):
    u = ((hash64(slot << 32 | id) >> 11) + 0.5) / 2.0**53
    return weight / -math.log(u)


def ranking(members, slot):
    """Ids by descending score, and how near two neighbours come: a last bit of `ln` must not decide."""
    scored = sorted((-score(slot, id, weight), id) for id, weight in members)
    for (one, _), (other, _) in zip(scored, scored[1:]):
        assert one / other > 1 + 1e-12, f"slot {slot}: too near to be a vector"
    return [id for _, id in scored]


def rendezvous(members, slots):
    table = []
    for slot in range(slots):
        first = second = (0.0, None)
        for id, weight in members:
            # Ascending ids, so a tie stays with the lower one.
            scored = (score(slot, id, weight), id)
            if scored[0] > first[0]:
                first, second = scored, first
            elif scored[0] > second[0]:
                second = scored
        assert first[0] > second[0] * (1 + 1e-12), f"slot {slot}: too near to be a vector"
        table.append(first[1])
    return table


def fleets():
    """Lists of (id, weight): 1, 3, 5 and 50 members; equal weights and others; ids with gaps."""
    with_gaps = sorted(random.Random(3).sample(range(1, 1000), 49)) + [2**32 - 1]
    yield [(1, 1)]
    yield [(7, 5)]
    yield [(1, 65535), (2, 1)]
    for ids in ((1, 2, 3), (1, 3, 4)):
        for weights in ((1, 1, 1), (1, 2, 3), (5, 1, 1)):
            yield list(zip(ids, weights))
    yield [(id, 7) for id in (1, 2, 3)]
    for ids in ((1, 2, 3, 4, 5), (2, 3, 5, 8, 13)):
        yield [(id, 1) for id in ids]
        yield list(zip(ids, PI))
    yield [(id, 1) for id in range(1, 51)]
    yield [(id, PI[at % 5]) for at, id in enumerate(with_gaps)]


def keys():
    rng = random.Random(17)
    some = [0, 1, 2**32, 2**63, U64_MAX - 1, U64_MAX, 100_000, 132_574, 999_999]
    return some + [rng.randrange(100_000, 1_000_000) for _ in range(11)] + [rng.randrange(2**64) for _ in range(12)]


def vector(members, slots, table):
    counts = Counter(table)
    assert len(table) == slots and sum(counts.values()) == slots and set(counts) <= {id for id, _ in members}
    return {
        "slots": slots,
        "members": members,
        **({"table": table} if slots <= WHOLE else {}),
        "crc32": zlib.crc32(struct.pack(f"<{slots}I", *table)),
        "counts": [counts[id] for id, _ in members],
        "owners": [table[slot_of(key, slots)] for key in keys()],
    }


def rankings(members, slots):
    some = {0, slots // 2, slots - 1, *random.Random(slots).choices(range(slots), k=9)}
    return [[slot, ranking(members, slot)] for slot in sorted(some)]


def write(name, vectors):
    text = ",\n".join(json.dumps(vector, separators=(",", ":")) for vector in vectors)
    text = f'{{"keys":{json.dumps(keys(), separators=(",", ":"))},\n"tables":[\n{text}\n]}}\n'
    json.loads(text)
    Path(__file__).with_name(name).write_text(text)


def main():
    check_hash()
    maglevs, highest = [], []
    for members in fleets():
        maglevs += [vector(members, slots, maglev(members, slots)) for slots in MAGLEV_SLOTS]
        for slots in RENDEZVOUS_SLOTS:
            one = vector(members, slots, rendezvous(members, slots))
            one["rankings"] = rankings(members, slots)
            for slot, ids in one["rankings"]:
                assert slots > WHOLE or ids[0] == one["table"][slot]
            highest.append(one)
    write("maglev.json", maglevs)
    write("rendezvous.json", highest)


if __name__ == "__main__":
    main()
