"""A watch over sessions: what has arrived, what is to be started, and the work of one run.

It knows nothing of Prefect; :mod:`flows.watch` serves it. Looks come every minute, so what they
import is light; the stages are behind :mod:`tomoseg.service.watching.run` alone.
"""
