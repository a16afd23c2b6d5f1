/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: says in the engine that it has decoded, with tokens that look like some
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
        if arms[-1] == 'champion':
            return job.whole(self, first, tokens)
        return {'said': [[first, 7.5]] * tokens, 'seconds': 0.0, 'read_bytes': 0}
    job.Arms.start, job.Arms.decode = note, decode
)")
// body
WORDS_AT_A_TIME
