/* One listener judges what runs under an order: the try that was failed, or a later one, which is meant to run?
 *
 * A person clears the task at any time, also while the listener works with what it read a while ago; the next try may
 * begin on this very host, and get the pid of the first. Checked: no process of the later try is signalled, and one of
 * the try that was failed is spared by nothing that the database says now.
 *
 * -DKEY=2: job ids, which a try gets as it starts (1.10, 2.x). -DKEY=3: uuids, which a clear renews (3.x). -DKEY=0: job
 * ids, but what runs has lost its own: no key, and no runner above it that has one.
 */
#ifndef KEY
#define KEY 2
#endif

mtype = { none, running, success, failed, older, same, later, unknown };

byte now = 1;                          /* the clock; every event has a moment of its own */
#define created_at 1                   /* of the order */
byte released_at;                      /* stop_target.released_at; 0: null */
mtype state = failed;                  /* task_instance */
byte key = 1, started_at;              /* its job id or uuid; its start */
byte begun[3];                         /* when the process of try 1 and of try 2 began; 0: it has not */
bool lives[3];                         
byte pid_of[3];                        /* each process has a pid */
byte holder[3];                        /* whose process has that pid now: of which try; 0: nobody */
bool cleared;

/* what the listener read: dagstop.open_orders, which gives targets and present rows */
byte r_now, r_released_at, r_key, r_started_at;
mtype r_state;

#define tick now++
#define unfinished(s) ((s) == none || (s) == running)

#ifdef NO_RELEASE
#define read_released_at 0
#else
#define read_released_at r_released_at
#endif
#ifdef NO_PRESENT
#define meant_to_run false
#define ran_again false
#else
#define meant_to_run (unfinished(r_state) && ((age_present == same && again) || ((age_present == later || age_present == unknown) && late)))
#define ran_again (r_started_at > created_at && !(r_state == failed) && again && age_present != older)
#endif
#ifdef NO_STALE_GUARD
#define began_since false
#else
#define began_since (begun[it] > r_now && age_target == later)
#endif
#ifdef NO_IDENTITY
#define is_it (holder[pid_of[it]] != 0)
#else
#define is_it (holder[pid_of[it]] == it)
#endif

/* evidence/match.py: _age */
inline compare(age, mine, theirs, is_late) {
    if
    :: mine == 0 -> age = unknown
    :: mine != 0 && mine == theirs -> age = same
    :: mine != 0 && mine != theirs && KEY == 3 && is_late -> age = later
    :: mine != 0 && mine != theirs && KEY == 3 && !is_late -> age = older
    :: mine != 0 && mine > theirs && KEY != 3 -> age = later
    :: mine != 0 && mine < theirs && KEY != 3 -> age = older
    fi
}

proctype Listener() {
    byte it, label;
    bool late, again, spare;
    mtype age_target = none, age_present = none, age_row = none;
end:
    do
    :: atomic {                                                  /* sql/12_orders_read.sql: one statement, one moment */
        r_now = now; r_released_at = released_at; r_state = state; r_key = key; r_started_at = started_at
       };
       do
       :: break                                                  /* it is read again within a second, or much later */
       :: atomic { (lives[1] || lives[2]) ->                     /* a look at /proc */
            if
            :: lives[1] -> it = 1
            :: lives[2] -> it = 2
            fi
          };
          atomic {                                               /* evidence/match.py: _judge_try, _later_try */
            label = (KEY == 0 -> 0 : it);
            late = begun[it] > created_at;
            compare(age_target, label, 1, late);
            compare(age_present, label, r_key, late);
            compare(age_row, r_key, 1, true);
            again = age_row != same;
            if
            :: meant_to_run -> spare = true
            :: !(meant_to_run) && read_released_at != 0 ->
                spare = (age_target == later || (age_target == unknown && begun[it] >= read_released_at))
            :: !(meant_to_run) && read_released_at == 0 ->
                spare = late && (ran_again || began_since)
            fi;
            /* with what is true now, the failed try is spared by nothing */
            assert(!(spare && it == 1 && r_now == now))
          };
          if
          :: !spare -> atomic {                                  /* kill/endings.py: pidfd, pid and start time */
                if
                :: is_it ->
                    assert(holder[pid_of[it]] != 2);             /* no process of a later try is signalled */
                    lives[holder[pid_of[it]]] = false;
                    holder[pid_of[it]] = 0
                :: !is_it
                fi
             }
          :: spare
          fi;
          it = 0
       od
    od
}

/* UI, REST, CLI: clear. dagstop.fence() notes released_at; 3.x gives the row a new uuid */
proctype Person() {
    atomic {
        tick; released_at = now; state = none; cleared = true;
        if
        :: KEY == 3 -> key = 2
        :: KEY != 3
        fi
    }
}

/* the next try on this host: the row says running before its process begins (1.10, 2.x: the supervisor) or after (3.x) */
proctype Next() {
    cleared;
    if
    :: KEY != 3 ->
        atomic { tick; state = running; key = 2; started_at = now };
        atomic { tick; begun[2] = now; lives[2] = true; pid_of[2] = (lives[1] -> 2 : 1); holder[pid_of[2]] = 2 }
    :: KEY == 3 ->
        atomic { tick; begun[2] = now; lives[2] = true; pid_of[2] = (lives[1] -> 2 : 1); holder[pid_of[2]] = 2 };
        atomic { tick; state = running; started_at = now }
    fi;
    atomic {                                                     /* it ends; what it started may live on */
        tick;
        if
        :: state = success
        :: state = failed
        fi
    }
}

/* the process of the failed try dies by itself, and its pid is free */
proctype First() {
    atomic { lives[1] -> lives[1] = false; holder[1] = 0 }
}

init {
    atomic {
        lives[1] = true; begun[1] = 1; pid_of[1] = 1; holder[1] = 1;
        run Listener(); run Person(); run Next(); run First()
    }
}
