"""The exit status of a command: what it promises to whoever starts it again (a shell, `bltjax launch`, Slurm,
a JobSet).

    0    done
    2    the user's input is wrong: the same command would end the same way
    42   stopped before its end, all that it had is saved or can be made anew: start it again, and it goes on.
         A signal (TERM, INT, HUP, USR1, USR2), or the watchdog of a run that hung
    else a failure that was reported; it must not be retried blindly

75 stays between `bltjax run` and its workers: another process is at this job. `bltjax run` itself waits for
that one, takes the job over where it stops, and so ends with one of the others."""

DONE, FAILED, WRONG, STOPPED = 0, 1, 2, 42
BUSY = 75
