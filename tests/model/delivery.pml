/* One order on its way to two hosts and back: NOTIFY, sweeps, reports, closing. Of time only that counts which decides:
 * a host unseen for half of live_seconds or for all of it, an order older than that.
 *
 * A NOTIFY may be lost, a connection cut, the database restart, a listener end cleanly or be killed and start again.
 * Checked: no order is lost. Each host has a final report on it at last.
 */
#ifndef BAD
#define BAD 2                          /* how many accidents */
#endif
#define HOSTS 2

bool committed, second;                /* the order's row in dagstop.stop_order; one with a higher id */
bool closed, old;                      /* closed_at; older than live_seconds and settle_seconds */
bool closed_without[HOSTS];
bool said[HOSTS], reported[HOSTS];     /* a row in dagstop.report; a final one */
bool row[HOSTS], same_id[HOSTS];       /* a row in dagstop.listener; of the listener that runs now */
bool caught_up[HOSTS];
byte seen[HOSTS];                      /* 0: less than half of live_seconds ago; 1: less than live_seconds; 2: longer */

bool feeds[HOSTS], sends[HOSTS];       /* the connections of a listener: for orders and for reports; one that is dead has none */
bool served[HOSTS];                    /* the orders of this connection were read once */
bool bell[HOSTS];                      /* a NOTIFY has arrived */
bool has[HOSTS];                       /* in memory: the order is carried out, or its report still to be sent */
bool passed[HOSTS];                    /* only with BY_LAST_ID: one with a higher id was read */
byte accidents;

#define live(h) (row[h] && seen[h] < 2)
#define is_open (committed && !closed)
#define unreported(h) (committed && !reported[h])
#ifdef NO_SWEEP
#define sweeps(h) (!served[h])
#else
#define sweeps(h) true
#endif
#ifdef KEEPS_CAUGHT_UP
#define stays_caught_up(h) caught_up[h]
#else
#define stays_caught_up(h) (caught_up[h] && same_id[h] && seen[h] == 0)
#endif
#ifdef NO_NOTE
#define note(h) false
#else
#define note(h) (live(h) && !reported[h])
#endif
#ifdef WAITS_FOR_NOBODY
#define waits_for(h) false
#else
#define waits_for(h) (live(h) && !reported[h] && (!old || said[h]))
#endif
#ifdef BY_LAST_ID
#define is_passed(h) passed[h]
#else
#define is_passed(h) false
#endif

/* UPDATE dag_run ... COMMIT: the order and its NOTIFY (sql/11_notify.sql), which reaches only who listens now */
active proctype Airflow() {
    if
    :: second = true                                             /* ids commit out of order */
    :: skip
    fi;
    atomic {
        committed = true;
        if
        :: bell[0] = feeds[0]; bell[1] = feeds[1]
        :: accidents < BAD -> accidents++                        /* lost */
        fi
    }
}

/* feed/notices.py: LISTEN, then sweep, then wait on the socket */
proctype Feed(byte h) {
    bool read;
end:
    do
    :: atomic { !feeds[h] -> feeds[h] = true; served[h] = false; bell[h] = false }
    :: atomic { feeds[h] && (bell[h] || sweeps(h)) ->
        if
        :: bell[h] && served[h] -> bell[h] = false; read = is_open && !reported[h]       /* dagstop.rung_for */
        :: sweeps(h) ->                                                                   /* dagstop.swept_for */
            if
            :: row[h] && caught_up[h] && seen[h] == 0 -> read = unreported(h) && (!closed || closed_without[h])
            :: else ->
                read = unreported(h);
                caught_up[h] = caught_up[h] || (row[h] && seen[h] == 0 && !(read && closed))
            fi
        fi;
        served[h] = true;
        read = read && !is_passed(h);
        passed[h] = passed[h] || (second && is_passed(h) == passed[h]);
        has[h] = has[h] || read;
        read = false
       }
    od
}

/* report/sender.py: reports first, then heartbeats */
proctype Sender(byte h) {
end:
    do
    :: atomic { !sends[h] && served[h] -> sends[h] = true }
    :: atomic { sends[h] && has[h] && !said[h] -> said[h] = true }               /* write_report: in progress */
    :: atomic { sends[h] && has[h] && !reported[h] -> said[h] = true; reported[h] = true }  /* write_report */
    :: atomic { sends[h] && feeds[h] && served[h] && !(has[h] && !reported[h]) ->            /* heartbeat */
        caught_up[h] = stays_caught_up(h);                                                /* dagstop.be_alive */
        row[h] = true; same_id[h] = true; seen[h] = 0
       }
    od
}

/* The chore `close`: dagstop.close_orders, dagstop.waits_for. Whichever listener calls it */
proctype Close() {
end:
    do
    :: atomic { is_open && (reported[0] || reported[1]) && !waits_for(0) && !waits_for(1) ->
        closed_without[0] = note(0);
        closed_without[1] = note(1);
        closed = true
       }
    od
}

/* Who cannot beat is unseen for ever longer */
#define silent(h) (row[h] && seen[h] < 2 && !(sends[h] && feeds[h] && served[h]))
proctype Clock() {
end:
    do
    :: atomic { silent(0) -> seen[0]++ }
    :: atomic { silent(1) -> seen[1]++ }
    :: atomic { committed && !old -> old = true }
    od
}

/* cases/: what was ended here is not begun again (evidence/recent_orders.py), what was not is begun by the next listener */
inline lose_feed(h) { feeds[h] = false; served[h] = false; bell[h] = false }
inline die(h) {
    sends[h] = false; has[h] = false; same_id[h] = false; passed[h] = false;
    lose_feed(h)
}

inline accident(h) {
    accidents++;
    if
    :: die(h)                                                    /* SIGKILL; systemd starts it again */
    :: sends[h] && row[h] -> row[h] = false; caught_up[h] = false; die(h)                 /* SIGTERM: dagstop.retire */
    :: lose_feed(h)
    :: sends[h] = false
    :: lose_feed(0); lose_feed(1); sends[0] = false; sends[1] = false                     /* the database restarts */
    fi
}

proctype Accident() {
end:
    do
    :: atomic { accidents < BAD -> accident(0) }
    :: atomic { accidents < BAD -> accident(1) }
    od
}

init {
    atomic { run Feed(0); run Sender(0); run Feed(1); run Sender(1); run Close(); run Clock(); run Accident() }
}

ltl no_order_lost { <> (reported[0] && reported[1]) }
