cwlVersion: v1.0
class: Workflow
inputs:
  inside: string
  first: string
  second: string
outputs:
  contained_out:
    type: File
    outputSource: contained/out
  plain_out:
    type: File
    outputSource: plain/out
steps:
  contained:
    in:
      seconds: inside
    out: [out]
    run:
      class: CommandLineTool
      requirements:
        DockerRequirement:
          dockerPull: dagstop-test
      baseCommand: sleep
      inputs:
        seconds:
          type: string
          inputBinding:
            position: 1
      stdout: contained.txt
      outputs:
        out: stdout
  plain:
    in:
      first: first
      second: second
    out: [out]
    run:
      class: CommandLineTool
      baseCommand: [bash, -c, 'sleep "$0" & sleep "$1"; wait']
      inputs:
        first:
          type: string
          inputBinding:
            position: 1
        second:
          type: string
          inputBinding:
            position: 2
      stdout: plain.txt
      outputs:
        out: stdout
