"""What Redis runs for notices and for dead letters that leave, each step whole or not at all."""

from proxy.queue.scripts import load

LETTERS = load("letters", __name__)
TELL = load("tell", __name__)
ANNOUNCE = load("announce", __name__)
LEAVE = load("leave", __name__)
