"""A service that takes orders and fulfils them: events, a saga, a read model and jobs, behind a web interface."""
