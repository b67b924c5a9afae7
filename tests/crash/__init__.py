"""The proof that nothing is lost: real processes under load, killed, stopped and cut off at random.

    make crash ROUNDS=200             or: python -m tests.crash --rounds 200
    python -m tests.crash --seed S --first N --rounds 1      one round of an earlier run again

A round is planned from the seed (`plan`), carried out (`site`, `parts`, `disk`, `far_end`) while
mail is handed in (`load`), and then every recipient of every message that was answered with 250 is
accounted for (`account`): sent, queued, dead or discarded; what was sent twice must have a reason.
"""
