"""What pyVmomi read is gone when nobody holds it: nothing is left for a full collection, which would stall the loop."""

import gc
import weakref

from pyVmomi import SoapAdapter, vim

from libs.providers.vsphere.settings import Endpoint
from libs.providers.vsphere.transport import Stub, Trust

ANSWER = """<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/">
<soapenv:Body><RetrieveServiceContentResponse xmlns="urn:vim25"><returnval>
<rootFolder type="Folder">group-d1</rootFolder><propertyCollector type="PropertyCollector">pc</propertyCollector>
<about><name>vCenter</name><fullName>vCenter 8</fullName><vendor>VMware</vendor><version>8.0.2</version>
<build>1</build><osType>linux</osType><productLineId>vpx</productLineId><apiType>VirtualCenter</apiType>
<apiVersion>8.0.2.0</apiVersion></about></returnval></RetrieveServiceContentResponse></soapenv:Body>
</soapenv:Envelope>"""


def test_an_answer_goes_with_the_last_who_held_it() -> None:
    stub = Stub(Endpoint(host="vc.example", port=443, path="/sdk"), Trust(), "vim.version.version9")
    gc.disable()
    try:
        reader = SoapAdapter.SoapResponseDeserializer(stub)
        answer = reader.Deserialize(ANSWER, vim.ServiceInstanceContent)
        assert answer.about.version == "8.0.2"
        told = weakref.ref(answer)
        del answer, reader
        assert told() is None
    finally:
        gc.enable()
