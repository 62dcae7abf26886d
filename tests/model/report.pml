/* One order on one host: notes, signals, looks, the report. The listener may be killed at any point, and the next one
 * goes on with what it finds in the journal and in the database.
 *
 * The task's process may start a child at any moment, also as it dies. Either may survive SIGTERM; SIGKILL it survives
 * only for a while. Checked: nothing is reported dead that lives, and what a signal killed is reported.
 */
#define N 2
#define KILLS 2                        /* how often the listener is killed */

bool lives[N];                         /* the process of the task, and its child */
bool child_of_first;                   /* it was started */
bool signalled[N];                     /* it got a signal of ours */

bool noted[N];                         /* in the journal, with the order's number */
bool reported;                         /* the row of dagstop.report: a final one */
bool r_named[N], r_dead[N];            /* whom it names, and as dead */

byte killed;                           /* listeners */

#ifdef NO_JOURNAL
#define note(p) skip
#else
#define note(p) noted[p] = true
#endif
#ifdef NO_LAST_LOOK
#define looked_since true
#else
#define looked_since fresh
#endif
#ifdef SENT_IS_DEAD
#define seen_dead(p) (got[p] || !lives[p])
#else
#define seen_dead(p) (!lives[p])
#endif
#ifdef SETTLES_EARLY
#define may_settle true
#else
#define may_settle (!told || reported)
#endif

proctype Listener() {
    bool found[N];                     /* it is hunted: an Ending */
    bool got[N];                       /* this listener sent it a signal, or took one over */
    bool dead[N];                      /* seen dead */
    bool fresh;                        /* nothing has died since the last look began, and it found nothing new */
    bool told;                         /* the final report is in the sender's memory */
    bool new;
    byte p;
again:
    /* kill/journal.py, report/findings.py: what an earlier listener noted is named from the beginning */
    atomic {
        found[0] = noted[0]; found[1] = noted[1]; got[0] = noted[0]; got[1] = noted[1];
        dead[0] = false; dead[1] = false; fresh = false; told = false; p = 0
    };
end:
    do
    :: atomic { killed < KILLS -> killed++; goto again }                        /* SIGKILL; systemd starts it again */
    :: !told && !reported ->
        if
        :: atomic { true ->                                      /* evidence/watch.py: a look at /proc begins */
            new = false;
            if
            :: lives[0] && !found[0] -> found[0] = true; new = true
            :: else
            fi;
            if
            :: lives[1] && !found[1] -> found[1] = true; new = true
            :: else
            fi;
            fresh = !new
           }
        :: atomic { found[0] && !got[0] && !dead[0] -> note(0) };               /* kill/journal.py: before the signal */
            atomic { got[0] = true; signalled[0] = signalled[0] || lives[0] }   /* kill/endings.py */
        :: atomic { found[1] && !got[1] && !dead[1] -> note(1) };
            atomic { got[1] = true; signalled[1] = signalled[1] || lives[1] }
        :: atomic { found[0] && !dead[0] && seen_dead(0) -> dead[0] = true; fresh = false }   /* the pidfd says so */
        :: atomic { found[1] && !dead[1] && seen_dead(1) -> dead[1] = true; fresh = false }
        :: atomic { looked_since && (!found[0] || dead[0]) && (!found[1] || dead[1]) ->       /* Hunt.finished */
            told = true
           }
        fi
    :: atomic { told && !reported ->                             /* report/sender.py: dagstop.write_report */
        reported = true;
        r_named[0] = found[0]; r_named[1] = found[1];
        r_dead[0] = dead[0]; r_dead[1] = dead[1];
        assert(!(r_dead[0] && lives[0]) && !(r_dead[1] && lives[1]));           /* nothing is called dead that lives */
        assert(!lives[0] && !lives[1]);                          /* nor is the order, as a whole: outcome `stopped` */
        assert((!signalled[0] || r_named[0]) && (!signalled[1] || r_named[1]))  /* what was killed is said */
       }
    :: atomic { (told || reported) && may_settle && (noted[0] || noted[1]) ->   /* SignalJournal.settle */
        noted[0] = false; noted[1] = false
       }
    od
}

/* The task: starts a child, which may happen after the look that found nothing new, and dies once it was signalled */
proctype Task() {
end:
    do
    :: atomic { lives[0] && !child_of_first -> child_of_first = true; lives[1] = true }
    :: atomic { lives[0] && signalled[0] -> lives[0] = false }
    :: atomic { lives[1] && signalled[1] -> lives[1] = false }
    :: atomic { lives[1] && !lives[0] && !reported -> lives[1] = false }        /* or ends by itself */
    od
}

init {
    atomic { lives[0] = true; run Task(); run Listener() }
}
