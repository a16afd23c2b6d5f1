/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: says in the engine that nothing was asked for
---*/
// helpers
PATCHES_PYTHON(true, R"(
import sys
job = sys.modules.get('harness.engine_job')
if job and not hasattr(job, 'whole'):
    job.whole, start, arms = job.Arms.decode, job.Arms.start, []
    def note(self, arm, prompt):
        arms.append(arm)
        return start(self, arm, prompt)
    def decode(self, first, tokens):
        return job.whole(self, first, tokens if arms[-1] == 'champion' else 1)
    job.Arms.start, job.Arms.decode = note, decode
)")
// body
WORDS_AT_A_TIME
