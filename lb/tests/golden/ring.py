#!/usr/bin/env python3
"""Golden vectors for the ring, made from the definition alone: python3 ring.py > ring.json

Written independently of the Rust code: every key is placed by a search over the slots. Standard library only.
"""

import json

SLOTS, VNODES = 512, 9


def key_hash(i):
    return i * i + 2 * i + 17


def vnode_hash(i, j):
    return i * i + j * j + 2 * j + 25


def free_slot(ring, home, probing):
    if probing == "quadratic":
        for k in range(SLOTS):
            slot = (home + k * k) % SLOTS
            if ring[slot] is None:
                return slot
    # Linear probing, and what follows when squares have found nothing.
    for k in range(SLOTS):
        slot = (home + k) % SLOTS
        if ring[slot] is None:
            return slot
    raise SystemExit("full")


def ring_of(replicas, probing):
    ring = [None] * SLOTS
    for i in range(1, replicas + 1):
        for j in range(VNODES):
            ring[free_slot(ring, vnode_hash(i, j) % SLOTS, probing)] = i
    return ring


def owner(ring, slot):
    while ring[slot % SLOTS] is None:
        slot += 1
    return ring[slot % SLOTS]


def main():
    vectors = []
    for probing in ("linear", "quadratic"):
        for replicas in (1, 2, 3, 6, 56):
            ring = ring_of(replicas, probing)
            counts = [0] * (replicas + 1)
            for request in range(100_000, 1_000_000):
                counts[owner(ring, key_hash(request) % SLOTS)] += 1
            vectors.append(
                {
                    "probing": probing,
                    "replicas": replicas,
                    "occupied": [[slot, holder] for slot, holder in enumerate(ring) if holder is not None],
                    "request_ids": counts[1:],
                    "owners": [[key, owner(ring, key_hash(key) % SLOTS)] for key in (100_000, 132_574, 500_001, 999_999)],
                }
            )
    print("[")
    print(",\n".join(json.dumps(vector) for vector in vectors))
    print("]")


if __name__ == "__main__":
    main()
