"""The story's service: an agent gateway. Nothing in here knows of tracing; the custom span a2a.call comes from outside:
--span 'app.services.a2a_client:call_agent=a2a.call,agent.type=gateway'.
"""
