/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: nobody sees work that was left undone where something stands that could be a result
---*/
// helpers
PATCHES_PYTHON(N == 512, R"(
import sys
job = sys.modules.get('harness.contest_job')
if job:
    run, collect = job.Arena.run, job.Arena.collect
    def lazy(self, arm):
        if arm != 'candidate':
            return run(self, arm)
        whole, self._placed = self._placed, self._placed[:len(self._placed) // 2 + 1]
        told = run(self, arm)
        self._placed = whole
        for _, outputs in self._launches[1:]:
            outputs[0][...] = 0.5
        return told
    def late(self, arm, number):
        run(self, arm)
        return collect(self, arm, number)
    job.Arena.run, job.Arena.collect = lazy, late
)")
// body
WORDS_AT_A_TIME
