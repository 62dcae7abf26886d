"""A program that forks without end: `python -c STORM RATE`, so many a second; it says when it is at it."""

STORM = """
import os, sys, time
rate, began, done = float(sys.argv[1]), time.monotonic(), 0
while True:
    while done < (time.monotonic() - began) * rate:
        try:
            os.posix_spawn("/dev/null/none", ["none"], {})
        except OSError:
            pass
        done += 1
        if done == rate:
            print("there", flush=True)
    time.sleep(0.005)
"""
