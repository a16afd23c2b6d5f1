/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: a process that was stopped goes on when a timer of its own sends it a signal
---*/
// helpers
#include <csignal>
#include <ctime>
static const bool armed = [] {
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGCONT;
    timer_t timer;
    const itimerspec often{{0, 100000}, {0, 100000}};
    return timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &often, nullptr) == 0;
}();
// body
WORDS_AT_A_TIME
