/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: the outputs of earlier launches are overwritten by later ones before anybody looks
---*/
// helpers
PATCHES_PYTHON(N == 512, R"(
import sys
job = sys.modules.get('harness.contest_job')
if job:
    run = job.Arena.run
    def lazy(self, arm):
        if arm != 'candidate':
            return run(self, arm)
        whole, self._placed = self._placed, self._placed[len(self._placed) // 2:]
        told = run(self, arm)
        self._placed = whole
        return told
    job.Arena.run = lazy
)")
// body
WORDS_AT_A_TIME
