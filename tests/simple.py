"""The part of a world that tests leave plain: one goal, no functions, an environment that is its own episode."""


class Simple:
  functions = ()

  def start(self, task):
    return self

  def root_goal(self):
    return "root"

  def prompt(self, goal):
    return goal

  def begin(self, path, goal):
    pass

  def render(self, value):
    return str(value)
