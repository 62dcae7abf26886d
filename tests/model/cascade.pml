/* The database alone: a run that fails, its one task instance, the fence, and what is left to the chores.
 *
 * A step is one statement of one transaction under READ COMMITTED. A row has what was committed, and at most one
 * transaction that holds it; what that one wrote is seen by others once it commits. Each transaction may abort
 * (an error, a database that restarts).
 *
 * -DAIRFLOW=1|2|3: who writes what (1.10, 2.x, 3.x). The other flags take a guard away; see test_model.py.
 */
#ifndef AIRFLOW
#define AIRFLOW 2
#endif
#ifndef FAILS
#define FAILS 2                       /* how often somebody fails the run */
#endif

/* retry: also up_for_reschedule, deferred. queued: also scheduled. gone: the row is deleted */
mtype = { none, queued, running, retry, success, failed, gone };
#define unfinished(s) ((s) == none || (s) == queued || (s) == running || (s) == retry)

#define open(n) (orders[n].there && !orders[n].closed)
#define any_open (open(0) || open(FAILS - 1) || open(FAILS))
#define left(n) (orders[n].there && !orders[n].cascaded)
#define any_left (left(0) || left(FAILS - 1))
#define others_have_run (run_held != 0 && run_held != _pid && for_update)
#define told(n) (orders[n].there && orders[n].target && !orders[n].released)
#ifdef FENCE_CLOSED
#define fences(n, late) told(n)
#else
#define fences(n, late) (told(n) && (!orders[n].closed || (orders[n].before == queued && late)))
#endif
#define RELEASE(n) orders[n].released = orders[n].released || (orders[n].there && orders[n].target)
#ifdef NO_FENCE
#define FENCED false
#else
#define FENCED true
#endif
#ifdef COMPLETES_BLINDLY
#define STILL_FAILED true
#else
#define STILL_FAILED (dag_run == failed)
#endif
/* What is let out, each under its flag: limits that docs/limits.md names */
#ifdef OVER_SUCCESS
#define may_end (ti != gone)
#else
#define may_end (ti != gone && ti != success)
#endif
#ifdef CLEARED_MESSAGE
#define of_this_queue true
#else
#define of_this_queue (turns == queued_at)
#endif
#ifdef START_BEFORE_CASCADE
#define may_start true
#else
#define may_start (dag_run != failed || !any_left)
#endif
#ifdef RETRY_BEFORE_COMMIT
#define may_retry true
#else
#define may_retry (run_held == 0)
#endif
#ifdef BY_STATE_ALONE
#define AS_IT_WAS (ti == pending_state)
#else
#define AS_IT_WAS (ti == pending_state && untouched)
#endif

typedef Order {
    bool there, cascaded, closed;     /* a committed row of stop_order: cascaded, closed_at */
    bool target, released;            /* its row of stop_target: released_at */
    mtype before                      /* state_before */
};

mtype dag_run = running;                  /* dag_run.state as committed */
mtype ti = queued;                    /* task_instance.state as committed */
byte run_held, ti_held;               /* the process whose transaction holds the row; 0: nobody */
bool for_update;                      /* the run is held FOR UPDATE: the check of a foreign key would wait for it */
Order orders[FAILS + 1];              /* of the run; the last one is of the task, when it failed by itself */
byte written;                         /* how many orders there are */
byte turns;                           /* how often the task was cleared, began or ended */
byte alive;                           /* processes of the task */
bool pending;                         /* a row of refused_write that is still to be put back */
mtype pending_state;                  /* its wanted_state */
bool untouched;                       /* it is the same try still: dagstop.try_of */
bool person;                          /* ghost: since the last failure a person has had the last word on the task */

/* commit of a transaction that holds the row of the task instance */
inline commit_ti(state) {
    if
    :: ti != state -> ti = state; untouched = false
    :: else
    fi;
    ti_held = 0
}

/* dagstop.orders_of_task, dagstop.fencing_order. late: dagstop.may_be_late */
inline find_fence(late) {
    fencing = false;
    i = 0;
    do
    :: i <= FAILS -> fencing = fencing || fences(i, late); i++
    :: else -> break
    od
}

/* dagstop.release */
inline release() {
    i = 0;
    do
    :: i <= FAILS -> RELEASE(i); i++
    :: else -> break
    od
}

/* One UPDATE of task_instance.state in a transaction that holds the row, with the trigger dagstop.fence().
 * state: what is written, and what stands afterwards. revival: dagstop.is_revival(). late: dagstop.may_be_late() */
inline update_ti(state, revival, late, by_person) {
    gave_way = false;
    if
    :: FENCED && ti == failed && state != failed ->
        find_fence(late);
        if
        :: fencing && (revival) ->
            assert(!(by_person) && !person);         /* the fence never holds what a person did */
            if
            :: !others_have_run -> state = failed      /* dagstop.set_again */
            :: others_have_run -> gave_way = true        /* refused_write.pending */
            fi
        :: else -> release_on_commit = true
        fi
    :: else
    fi
}

inline end_update(state, by_person) {
    if
    :: ti != state -> person = by_person || (person && of_person)      /* who has the last word now */
    :: else
    fi;
    if
    :: gave_way -> pending = true; pending_state = state
    :: else
    fi;
    if
    :: state == failed && ti != failed ->                          /* dagstop.order_task */
        person = false;
        orders[FAILS].there = true; orders[FAILS].cascaded = true; orders[FAILS].target = true;
        orders[FAILS].closed = false; orders[FAILS].released = false; orders[FAILS].before = ti
    :: else
    fi;
    if
    :: release_on_commit -> release()
    :: else
    fi;
    commit_ti(state);
    if
    :: gave_way -> untouched = true
    :: else
    fi
}

/* UPDATE dag_run SET state = 'failed': psql, the UI, a timeout. sql/07_orders.sql, sql/09_cascade.sql */
proctype Failer() {
    bool cascaded, took, ended;
    mtype before;
    byte i;
    atomic { run_held == 0 -> run_held = _pid };
    if
    :: dag_run == failed || dag_run == gone -> run_held = 0; goto done
    :: else
    fi;
    /* dagstop.cascade_statement: write_orders, cascade_orders. It tries for a second (may_wait) and never waits */
    atomic {
        if
        :: !unfinished(ti) -> cascaded = true; ended = true; before = ti   /* a target too: it ended a moment ago */
#ifdef WAITS_FOR_ROWS
        :: unfinished(ti) -> ti_held == 0 -> ti_held = _pid; took = true; before = ti; cascaded = true
#else
        :: unfinished(ti) && ti_held == 0 -> ti_held = _pid; took = true; before = ti; cascaded = true
        :: unfinished(ti) && ti_held != 0 -> cascaded = false      /* dagstop.leave_to_heartbeat */
        :: cascaded = false                                        /* any fault: write_orders(carried_out => false) */
#endif
        fi
    };
    atomic {
        if
        :: true ->                                                 /* commit: NOTIFY goes out, see delivery.pml */
            dag_run = failed;
            orders[written].there = true;
            orders[written].cascaded = cascaded;
            orders[written].target = took || ended;
            orders[written].before = before;
            written++;
            person = false;
            if
            :: took -> commit_ti(failed)
            :: else
            fi
        :: true ->                                                 /* abort */
            if
            :: took -> ti_held = 0
            :: else
            fi
        fi;
        run_held = 0
    };
done:
    skip
}

/* The chore `complete`: dagstop.complete_left, dagstop.complete_orders. Any listener calls it; see sender.py */
proctype Complete() {
    byte i, n;
    bool took;
    mtype before;
end:
    do
#ifndef NO_COMPLETION
    :: atomic {
        run_held == 0 && any_left ->
        if
        :: left(0) -> n = 0
        :: left(FAILS - 1) -> n = FAILS - 1
        fi;
        took = false;
        before = none;
        run_held = _pid                                            /* for no key update of r skip locked */
       };
       atomic {
        if
        :: !STILL_FAILED -> orders[n].cascaded = true; run_held = 0
        :: STILL_FAILED ->
            if
            :: unfinished(ti) && ti_held == 0 -> ti_held = _pid; took = true; before = ti
            :: unfinished(ti) && ti_held != 0 -> run_held = 0      /* the next call */
            :: !unfinished(ti) -> orders[n].cascaded = true; orders[n].target = true; orders[n].before = ti; run_held = 0
            fi
        fi
       };
       if
       :: took -> atomic {
            if
            :: true ->
                assert(!person);                                   /* the cascade fails nothing that a person cleared */
                commit_ti(failed);
                orders[n].cascaded = true; orders[n].target = true; orders[n].before = before
            :: ti_held = 0                                         /* abort */
            fi;
            run_held = 0
         }
       :: else
       fi
#endif
    :: false
    od
}

/* The chore `put back`: dagstop.put_back_left. While a row is pending a listener calls it twice a second */
proctype PutBack() {
end:
    do
    :: atomic {
        pending && ti_held == 0 && !(run_held != 0 && for_update) ->
        if
        :: AS_IT_WAS -> assert(!person); ti = failed
        :: else
        fi;
        pending = false
       }
    :: false
    od
}

/* The listeners have reported: dagstop.close_orders. They do so once nothing of the task lives; see tries.pml */
proctype Close() {
    byte i;
end:
    do
    :: atomic {
        alive == 0 && any_open ->
        i = 0;
        do
        :: i <= FAILS -> orders[i].closed = orders[i].there; i++
        :: else -> break
        od
       }
    :: false
    od
}

/* What a message in an executor's queue starts: the task's own process. It may be killed at each step */
proctype Task(byte queued_at) {
    byte i;
    bool fencing, gave_way, release_on_commit, of_person;
    mtype state;
    atomic { ti_held == 0 && may_start ->
        of_person = person;
        if
        :: ti == queued
#if AIRFLOW == 1
        :: ti == failed && of_this_queue                           /* QUEUEABLE_STATES has FAILED in 1.10.1 */
#endif
        :: else -> goto done
        fi;
        ti_held = _pid;
        alive++;
        turns++
    };
    state = running;
    atomic {
        update_ti(state, true, AIRFLOW == 1, false);
        if
        :: end_update(state, false)
        :: ti_held = 0                                             /* abort */
        fi
    };
    release_on_commit = false;
    /* it runs; then it writes how it ended, whatever the row says by then (1.10, 2.x), or nothing: it was killed */
    if
    :: state = success
    :: state = retry
    :: state = failed
    :: goto dead
    fi;
    atomic { ti_held == 0 ->
        if
#if AIRFLOW == 3
        :: ti == running                                           /* the API server's FOR UPDATE; else 409 */
        :: else -> goto dead
#else
        :: may_end
        :: else -> goto dead
#endif
        fi;
        ti_held = _pid
    };
    atomic {
        /* success: dagstop.is_late_success knows 1.10's and 2.3's own */
        update_ti(state, state == retry || state == success, AIRFLOW == 1, false);
        turns++;
        if
        :: end_update(state, false)
        :: ti_held = 0
        fi
    };
dead:
    atomic { alive > 0 -> alive-- };
done:
    skip
}

/* The scheduler, or the mini scheduler of 2.x: none -> queued while the run is running */
proctype Scheduler() {
    byte i;
    bool fencing, gave_way, release_on_commit, of_person = true;
    byte at;
    mtype state = queued;
#ifdef STALE_SCHEDULER
    /* 1.10 decides without a lock, and writes what is FAILED by then, too */
end_stale:
    ti == none && dag_run == running;
    atomic { ti_held == 0 && ti != gone -> ti_held = _pid };
#else
end_idle:
    atomic { run_held == 0 && dag_run == running && ti == none -> run_held = _pid; for_update = true };
    atomic {
        if
        :: ti_held == 0 && ti == none -> ti_held = _pid
        :: else -> run_held = 0; for_update = false; goto done
        fi
    };
#endif
    atomic {
        update_ti(state, true, false, false);
        if
        :: end_update(state, false); at = turns
        :: ti_held = 0
        fi;
#ifndef STALE_SCHEDULER
        run_held = 0;
        for_update = false
#endif
    };
    if
    :: ti == queued -> run Task(at)
    :: else
    fi;
done:
    skip
}

/* Somebody who has the run FOR UPDATE and wants nothing of us: an API call, a scheduler that looks at it */
proctype Bystander() {
    atomic { run_held == 0 -> run_held = _pid; for_update = true };
    atomic { run_held = 0; for_update = false };
}

/* A person: clears, marks success, sets to up_for_retry, deletes. Airflow's clear writes in either order */
proctype Person() {
    byte i;
    bool fencing, gave_way, release_on_commit, of_person = true;
    mtype state;
    if
    :: state = none; goto end_task_first
    :: state = none;                                               /* clear, the run first */
end_run_first:
        atomic { run_held == 0 && dag_run != gone -> run_held = _pid };
        atomic { ti_held == 0 -> ti_held = _pid };
        goto both
    :: state = success                                             /* mark success: the state alone, or the old end */
    :: atomic { !any_open && !any_left && ti == failed -> state = retry }      /* set_retry, afterwards */
    :: atomic { run_held == 0 -> run_held = _pid };                /* delete */
        atomic { ti_held == 0 -> dag_run = gone; commit_ti(gone); run_held = 0 };
        goto done
    fi;
    atomic { ti_held == 0 && ti != gone -> ti_held = _pid };
    atomic {
        if
        :: state == retry && (ti != failed || any_open || any_left || !may_retry) -> ti_held = 0; goto done
        :: (state == retry && ti == failed && !any_open && !any_left && may_retry) || state == success
        fi;
        update_ti(state, state == retry, false, true);
        if
        :: end_update(state, true)
        :: ti_held = 0
        fi
    };
    goto done;
end_task_first:
    atomic { ti_held == 0 && ti != gone -> ti_held = _pid };
    atomic { run_held == 0 -> run_held = _pid };
both:
    atomic {
        update_ti(state, false, false, true);
        if
        :: end_update(state, true); dag_run = running; turns++
        :: ti_held = 0                                             /* abort */
        fi;
        run_held = 0
    };
done:
    skip
}

init {
    byte n;
    atomic {
        run Complete();
        run PutBack();
        run Close();
        run Task(turns);
        run Scheduler();
        run Person();
        n = 0;
        do
        :: n < FAILS -> run Failer(); n++
        :: else -> break
        od;
#ifdef BYSTANDER
        run Bystander();
#endif
    };
    /* when everything has come to rest: no task instance of a failed run is left unfinished for ever */
    timeout;
    assert(!(dag_run == failed && unfinished(ti)) || person)
}
